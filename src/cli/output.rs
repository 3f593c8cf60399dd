//! The one place that writes: results to stdout, everything else to stderr, and a progress bar on a terminal.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::telemetry::logging::chain;

use super::error::Error;

const BAR_STEPS: u64 = 1000;

/// A cheap handle; clones write to the same place.
#[derive(Clone)]
pub(super) struct Output {
    streams: Arc<Mutex<Streams>>,
    json: bool,
    quiet: bool,
    color: bool,
    /// Whether stderr is a terminal that a bar can be drawn on.
    can_draw: bool,
    /// Whether stdout is a terminal whose text can be taken away again.
    can_wipe: bool,
    bar: Option<ProgressBar>,
}

struct Streams {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
}

impl Output {
    pub(super) fn of_process(json: bool, quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self {
            can_draw: is_terminal && !quiet && !json,
            color: is_terminal,
            can_wipe: io::stdout().is_terminal(),
            ..Self::new(Box::new(io::stdout()), Box::new(io::stderr()), json, quiet)
        }
    }

    pub(super) fn new(
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
        json: bool,
        quiet: bool,
    ) -> Self {
        Self {
            streams: Arc::new(Mutex::new(Streams { stdout, stderr })),
            json,
            quiet,
            color: false,
            can_draw: false,
            can_wipe: false,
            bar: None,
        }
    }

    pub(super) fn set_color(&mut self, allowed: bool) {
        self.color &= allowed;
    }

    /// Whether results are printed as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody sees a progress bar.
    pub(super) fn can_draw(&self) -> bool {
        self.can_draw
    }

    /// A line of the result.
    ///
    /// # Errors
    /// [`Error::BrokenPipe`] when its reader has left, [`Error::Stdout`] when it cannot be written, on a full disk for example.
    pub(super) fn line(&self, text: &str) -> Result<(), Error> {
        self.write(&format!("{}\n", printable(text)))
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let written = self.undisturbed(|streams| {
            streams.stdout.write_all(text.as_bytes())?;
            streams.stdout.flush()
        });
        written.map_err(|error| {
            let has_reader = error.kind() != ErrorKind::BrokenPipe;
            if has_reader {
                Error::Stdout(error)
            } else {
                Error::BrokenPipe
            }
        })
    }

    /// Takes everything away that is on the terminal; false where stdout is none, or where JSON is printed.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(super) fn wipe(&self) -> Result<bool, Error> {
        let can_wipe = self.can_wipe && !self.json;
        if can_wipe {
            // To the upper left corner, then everything from there on.
            self.write("\u{1b}[H\u{1b}[J")?;
        }
        Ok(can_wipe)
    }

    /// A JSON object of the result, on one line.
    pub(super) fn object(&self, value: &Value) -> Result<(), Error> {
        self.line(&value.to_string())
    }

    /// A remark about what happens, unless `--quiet`.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Something that went wrong, even with `--quiet`. A stderr that cannot be written leaves nobody to tell.
    pub(super) fn complain(&self, text: &str) {
        self.undisturbed(|streams| writeln!(streams.stderr, "{}", printable(text)))
            .ok();
    }

    /// Prints the error that ends the program and returns the exit code.
    pub(super) fn fail(&self, error: &Error) -> u8 {
        self.clear();
        if !matches!(error, Error::BrokenPipe) {
            let label = if self.color {
                "\u{1b}[31merror:\u{1b}[0m"
            } else {
                "error:"
            };
            let text = printable(&chain(error));
            writeln!(self.lock().stderr, "{label} {text}").ok();
        }
        error.exit_code()
    }

    /// Draws how far something is, `fraction` from 0 to 1; nothing without a terminal.
    pub(super) fn draw(&mut self, fraction: f64, text: String) {
        if !self.can_draw {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("[{wide_bar}] {percent:>3} % {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr())
                .with_style(style)
        });
        // In range by the clamp.
        bar.set_position((fraction.clamp(0.0, 1.0) * BAR_STEPS as f64) as u64);
        bar.set_message(text);
    }

    /// Takes the progress bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Writes with the progress bar out of the way.
    fn undisturbed(&self, write: impl FnOnce(&mut Streams) -> io::Result<()>) -> io::Result<()> {
        match &self.bar {
            None => write(&mut self.lock()),
            Some(bar) => bar.suspend(|| write(&mut self.lock())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Half a line is the worst that a panic can leave behind.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text from a server may hold anything; control characters must not reach the terminal.
fn printable(text: &str) -> String {
    let is_dangerous = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(is_dangerous, "\u{fffd}")
}
