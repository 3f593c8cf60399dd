//! The progress bar on a terminal.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Characters of the bar; fixed, so that it does not move with the text beside it.
const WIDTH: u64 = 30;
const PER_MILLE: u64 = 1000;

#[derive(Clone)]
pub(super) struct Bar {
    bar: ProgressBar,
    /// Drawn share in thousandths. Kept outside the bar, so that share and text are drawn together:
    /// two setters would draw the new share with the old text in between.
    share: Arc<AtomicU64>,
}

impl Bar {
    pub(super) fn new(target: ProgressDrawTarget) -> Self {
        let share = Arc::new(AtomicU64::new(0));
        let drawn = Arc::clone(&share);
        let write = move |_: &ProgressState, text: &mut dyn fmt::Write| {
            text.write_str(&share_text(drawn.load(Ordering::Relaxed)))
                .ok();
        };
        let style = ProgressStyle::with_template("{share} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("share", write);
        Self {
            bar: ProgressBar::with_draw_target(None, target).with_style(style),
            share,
        }
    }

    /// Draws a share from 0 to 1 with a text.
    pub(super) fn draw(&self, fraction: f64, text: String) {
        // In range by the clamp.
        let share = (fraction.clamp(0.0, 1.0) * PER_MILLE as f64) as u64;
        self.share.store(share, Ordering::Relaxed);
        self.bar.set_message(text);
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// True after [`Bar::clear`]; nothing is drawn any more.
    pub(super) fn is_cleared(&self) -> bool {
        self.bar.is_finished()
    }

    /// Runs while the bar is hidden.
    pub(super) fn suspend<T>(&self, run: impl FnOnce() -> T) -> T {
        self.bar.suspend(run)
    }
}

/// `[=======>                      ]  25 %`.
fn share_text(share: u64) -> String {
    let done = (share * WIDTH / PER_MILLE) as usize;
    let head = if share < PER_MILLE { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(done));
    format!("[{bar:<0$}] {1:>3} %", WIDTH as usize, share / 10)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 80 columns that keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<Vec<String>>>);

    impl Terminal {
        fn written(&self) -> Vec<String> {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *written)
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            if !text.trim().is_empty() {
                self.0.lock().unwrap().push(text.trim_end().to_owned());
            }
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_has_the_same_width_at_every_share() {
        assert_eq!(share_text(0), "[>                             ]   0 %");
        assert_eq!(share_text(250), "[=======>                      ]  25 %");
        assert_eq!(share_text(1000), "[==============================] 100 %");
    }

    #[test]
    fn share_and_text_are_drawn_together_on_one_line() {
        let terminal = Terminal::default();
        // A rate above that of the test, so that no draw is left out.
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let bar = Bar::new(target);
        bar.draw(0.25, "epoch 1/4".to_owned());
        assert_eq!(
            terminal.written(),
            ["[=======>                      ]  25 % epoch 1/4"]
        );
        bar.draw(0.5, "x".repeat(100));
        // Without a draw of the new share with the old text. Cut, because a wrapped line could not
        // be removed again.
        let written = terminal.written();
        assert_eq!(written.len(), 1, "{written:?}");
        assert!(written[0].starts_with("[===============>              ]  50 % xxx"));
        assert!(written[0].chars().count() <= 80, "{written:?}");
        assert!(!bar.is_cleared());
        bar.clear();
        assert_eq!(terminal.written(), [] as [String; 0]);
        assert!(bar.is_cleared());
    }
}
