//! All output of the program: results on stdout, everything else on stderr, and a progress bar on a
//! terminal.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use indicatif::ProgressDrawTarget;
use serde_json::Value;

use crate::{
    cli::{error::Error, output::bar::Bar},
    telemetry::logging::chain,
};

/// A cheap handle; clones write to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    streams: Arc<Mutex<Streams>>,
    json: bool,
    quiet: bool,
    color: bool,
    /// Stderr is a terminal and may show a progress bar.
    can_draw: bool,
    /// Stdout is a terminal that can be cleared.
    can_clear: bool,
    bar: Option<Bar>,
}

struct Streams {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
}

impl Output {
    pub(crate) fn of_process(json: bool, quiet: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self {
            can_draw: is_terminal && !quiet && !json,
            color: is_terminal,
            can_clear: io::stdout().is_terminal(),
            ..Self::new(Box::new(io::stdout()), Box::new(io::stderr()), json, quiet)
        }
    }

    pub(crate) fn new(
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
            can_clear: false,
            bar: None,
        }
    }

    pub(crate) fn set_color(&mut self, allowed: bool) {
        self.color &= allowed;
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn can_draw(&self) -> bool {
        self.can_draw
    }

    /// Prints a line of the result.
    ///
    /// # Errors
    /// [`Error::BrokenPipe`] if the reader closed stdout, [`Error::Stdout`] if the write failed.
    pub(crate) fn line(&self, text: &str) -> Result<(), Error> {
        self.write(&format!("{}\n", printable(text)))
    }

    fn write(&self, text: &str) -> Result<(), Error> {
        let written = self.suspended(|streams| {
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

    /// Clears the terminal; returns false if stdout is not a terminal or JSON is printed.
    ///
    /// # Errors
    /// As for [`Output::line`].
    pub(crate) fn clear_screen(&self) -> Result<bool, Error> {
        let can_clear = self.can_clear && !self.json;
        if can_clear {
            // Moves to the upper left corner and clears from there.
            self.write("\u{1b}[H\u{1b}[J")?;
        }
        Ok(can_clear)
    }

    /// Prints a JSON object of the result on one line.
    pub(crate) fn object(&self, value: &Value) -> Result<(), Error> {
        self.line(&value.to_string())
    }

    /// Prints an informational message, except with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints a warning, also with `--quiet`. A failed write to stderr cannot be reported.
    pub(crate) fn warn(&self, text: &str) {
        self.suspended(|streams| writeln!(streams.stderr, "{}", printable(text)))
            .ok();
    }

    /// Prints the error that ends the program, and returns the exit code.
    pub(crate) fn fail(&self, error: &Error) -> u8 {
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

    /// Draws the progress bar on a terminal; `fraction` is from 0 to 1.
    pub(crate) fn draw(&mut self, fraction: f64, text: String) {
        if !self.can_draw {
            return;
        }
        // A command may have several phases, each with its own bar.
        let cleared = self.bar.take_if(|bar| bar.is_cleared());
        drop(cleared);
        let bar = self
            .bar
            .get_or_insert_with(|| Bar::new(ProgressDrawTarget::stderr()));
        bar.draw(fraction, text);
    }

    /// Removes the progress bar.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }

    /// Writes while the progress bar is hidden.
    fn suspended(&self, write: impl FnOnce(&mut Streams) -> io::Result<()>) -> io::Result<()> {
        match &self.bar {
            None => write(&mut self.lock()),
            Some(bar) => bar.suspend(|| write(&mut self.lock())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // A panic can leave half a line behind at worst.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces control characters, which text from a server may contain, so that they do not reach the
/// terminal.
pub(crate) fn printable(text: &str) -> String {
    let is_dangerous = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(is_dangerous, "\u{fffd}")
}
