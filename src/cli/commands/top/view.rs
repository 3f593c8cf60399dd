//! One sample with what else is drawn around it.

use ratatui::style::{Color, Modifier, Style};

use crate::cli::commands::top::{rates::Rates, sample::Sample};

pub(super) struct View<'a> {
    pub(super) server: &'a str,
    pub(super) now: &'a Sample,
    pub(super) earlier: Option<&'a Sample>,
    pub(super) rates: &'a Rates,
    /// Why the latest refresh failed.
    pub(super) lost: Option<&'a str>,
    pub(super) color: bool,
    /// Lists the keys in the footer.
    pub(super) is_live: bool,
}

impl View<'_> {
    pub(super) fn style(&self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    pub(super) fn title(&self) -> Style {
        self.style(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}
