//! The terminal in raw mode, and its keys.

use std::{io, thread};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyModifiers},
        execute, terminal,
    },
};
use tokio::sync::mpsc;

use crate::cli::commands::top::{layout, view::View};

/// The terminal; restored when this is dropped, also by a panic.
pub(super) struct Screen(Terminal<CrosstermBackend<io::Stdout>>);

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // Constructed before the next step, so that a failure there restores the terminal.
        let screen = Self(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        self.0.draw(|frame| {
            let area = frame.area();
            layout::draw(view, area, frame.buffer_mut());
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails only if the terminal is gone.
        execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show).ok();
        terminal::disable_raw_mode().ok();
    }
}

pub(super) enum Key {
    Quit,
    Redraw,
}

/// Reads the keyboard on a thread, which ends with the process.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(16);
    drop(thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(key) = key(&event)
                && sender.blocking_send(key).is_err()
            {
                return;
            }
        }
    }));
    receiver
}

fn key(event: &Event) -> Option<Key> {
    if matches!(event, Event::Resize(..)) {
        return Some(Key::Redraw);
    }
    let key = event.as_key_press_event()?;
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    // Raw mode delivers Ctrl-C as a key.
    let quits = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (is_control && key.code == KeyCode::Char('c'));
    quits.then_some(Key::Quit)
}
