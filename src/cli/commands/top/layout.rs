//! Layout of a view: trainings above, serving below, in the available lines.

use std::time::SystemTime;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Color,
    text::Line,
    widgets::{Paragraph, Widget},
};

use crate::cli::{
    commands::top::{serving, trainings, view::View},
    output::{printable, text::duration_text},
};

const TITLE_LINES: u16 = 2;

/// Number of lines that the whole view takes.
pub(super) fn height(view: &View<'_>) -> u16 {
    trainings::height(view)
        .saturating_add(TITLE_LINES)
        .saturating_add(serving::height(view))
}

/// Draws into an area; one that is too small shows fewer trainings.
pub(super) fn draw(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let footer_lines = u16::from(view.is_live || view.lost.is_some());
    let [title, above, below, footer] = Layout::vertical([
        Constraint::Length(TITLE_LINES),
        Constraint::Min(2),
        Constraint::Length(serving::height(view)),
        Constraint::Length(footer_lines),
    ])
    .areas(area);
    Paragraph::new(title_lines(view)).render(title, buffer);
    trainings::draw(view, above, buffer);
    serving::draw(view, below, buffer);
    Paragraph::new(footer_line(view)).render(footer, buffer);
}

fn title_lines(view: &View<'_>) -> Vec<Line<'static>> {
    let info = &view.now.info;
    let up = info
        .start_time
        .and_then(|time| SystemTime::try_from(time).ok())
        .and_then(|start| SystemTime::now().duration_since(start).ok());
    let up = up.map_or(String::new(), |up| format!("  up {}", duration_text(up)));
    let live = match info.live_model.as_str() {
        "" => "no live version",
        name => name,
    };
    let text = format!(
        "visage {}  {}  {}{up}  {live}",
        info.version,
        view.server.trim_start_matches("http://"),
        info.device,
    );
    vec![Line::styled(text, view.title()), Line::default()]
}

fn footer_line(view: &View<'_>) -> Line<'static> {
    match view.lost {
        Some(cause) => Line::styled(
            printable(&format!("no response ({cause}); retrying")),
            view.style(Color::Red),
        ),
        None => Line::raw("q quits"),
    }
}
