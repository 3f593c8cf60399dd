//! The table of trainings.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::Color,
    widgets::{Cell, Paragraph, Row, Table, Widget},
};

use crate::{
    cli::{
        args::short_names,
        commands::top::{
            text::{BAR_CELLS, bar, number},
            view::View,
        },
        output::{
            printable,
            text::{duration_text, std_duration},
        },
        report::state_name,
    },
    proto::v1::{Training, TrainingState},
};

/// Number of lines of the whole table with its header.
pub(super) fn height(view: &View<'_>) -> u16 {
    let trainings = u16::try_from(view.now.trainings.len().max(1)).unwrap_or(u16::MAX);
    trainings.saturating_add(1)
}

pub(super) fn draw(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let all = &view.now.trainings;
    let lines = usize::from(area.height.saturating_sub(1));
    let shown = if all.len() > lines {
        // The last line shows the number of the others.
        lines.saturating_sub(1)
    } else {
        all.len()
    };
    let rows = all.iter().take(shown).map(|training| row(view, training));
    let widths = [
        Constraint::Min(12),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(BAR_CELLS as u16 + 5),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let header = [
        "TRAINING", "STATE", "EPOCH", "DONE", "LOSS", "VAL LOSS", "IMG/S", "ETA",
    ];
    let table = Table::new(rows, widths)
        .column_spacing(1)
        .header(Row::new(header).style(view.title()));
    Widget::render(table, area, buffer);
    let below = |line: usize| {
        let offset = u16::try_from(line + 1).unwrap_or(u16::MAX);
        let area = Rect {
            y: area.y.saturating_add(offset),
            height: 1,
            ..area
        };
        area.intersection(*buffer.area())
    };
    let note = match all.len() {
        0 => Some("none; start one with `visage train DIRECTORY`".to_owned()),
        count if count > shown => Some(format!("and {} more", count - shown)),
        _ => None,
    };
    if let Some(note) = note {
        let place = below(shown);
        Paragraph::new(note).render(place, buffer);
    }
}

fn row(view: &View<'_>, training: &Training) -> Row<'static> {
    let state = training.state();
    let color = match state {
        TrainingState::Running | TrainingState::Preparing | TrainingState::Stopping => Color::Green,
        TrainingState::Failed => Color::Red,
        TrainingState::Queued | TrainingState::Pausing | TrainingState::Paused => Color::Yellow,
        TrainingState::Succeeded
        | TrainingState::Cancelled
        | TrainingState::Cancelling
        | TrainingState::Unspecified => Color::Reset,
    };
    let progress = training.progress.as_ref();
    let last = training.last.as_ref();
    let epoch = match (progress, last) {
        (Some(progress), _) => format!("{}/{}", progress.epoch, progress.max_epochs),
        (None, Some(last)) => format!("{}/{}", last.epoch, last.max_epochs),
        (None, None) => String::new(),
    };
    let done = match (progress, state) {
        (Some(progress), _) => bar(progress.fraction),
        (None, TrainingState::Succeeded) => bar(1.0),
        (None, _) => last.map_or(String::new(), |last| {
            bar(f64::from(last.epoch) / f64::from(last.max_epochs.max(1)))
        }),
    };
    let loss = progress
        .and_then(|progress| progress.train_loss)
        .or(last.map(|last| last.train_loss));
    let speed = progress.map(|progress| progress.images_per_second);
    let eta = progress.and_then(|progress| progress.eta.as_ref());
    let optional = |value: Option<f64>| value.map_or(String::new(), number);
    Row::new([
        Cell::new(printable(short_names::training_id(&training.name))),
        Cell::new(state_name(state)).style(view.style(color)),
        Cell::new(epoch),
        Cell::new(done),
        Cell::new(optional(loss)),
        Cell::new(optional(last.map(|last| last.val_loss))),
        Cell::new(optional(speed.filter(|speed| *speed > 0.0))),
        Cell::new(eta.map_or(String::new(), |eta| duration_text(std_duration(eta)))),
    ])
}
