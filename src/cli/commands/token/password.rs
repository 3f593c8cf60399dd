use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use ratatui::crossterm::{
    event::{Event, KeyCode, KeyEventKind, KeyModifiers, read},
    terminal::{disable_raw_mode, enable_raw_mode},
};

/// Reads a password: without echo from a terminal, twice, otherwise the first line of standard
/// input.
///
/// # Errors
/// The two differ, or the input ended.
pub(super) fn read_password() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let first = prompt("Password: ")?;
    let second = prompt("Again: ")?;
    if first == second {
        return Ok(first);
    }
    Err(io::Error::other(
        "the two passwords differ; run the command again",
    ))
}

fn prompt(text: &str) -> io::Result<String> {
    let mut error_output = io::stderr();
    write!(error_output, "{text}")?;
    error_output.flush()?;
    enable_raw_mode()?;
    let line = read_hidden();
    disable_raw_mode()?;
    writeln!(error_output)?;
    line
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys are ignored")]
fn read_hidden() -> io::Result<String> {
    let mut line = String::new();
    loop {
        let Event::Key(key) = read()? else {
            continue;
        };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match key.code {
            KeyCode::Enter => return Ok(line),
            KeyCode::Backspace => {
                line.pop();
            }
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(io::Error::new(
                    io::ErrorKind::Interrupted,
                    "cancelled; nothing was changed",
                ));
            }
            KeyCode::Char(letter) => line.push(letter),
            _ => {}
        }
    }
}
