//! The view: trainings above, serving below, in as many lines as there are.

use std::time::{Duration, SystemTime};

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, Widget},
};

use crate::proto::v1::{Training, TrainingState};

use super::{
    super::{
        names,
        report::{duration_text, state_name, std_duration},
    },
    sample::{Rates, Sample, per_second},
};

/// Cells of a bar that shows how far a training is.
const BAR: usize = 8;
/// Lines of the title and of the table's.
const HEAD_LINES: u16 = 2;
/// Lines about serving above the versions: an empty one, the rates, the header of the times, and four times.
const SERVING_LINES: u16 = 7;
/// Versions that are listed.
const MOST_VERSIONS: usize = 5;

/// Everything that is shown at one moment.
pub(super) struct View<'a> {
    pub(super) server: &'a str,
    pub(super) now: &'a Sample,
    pub(super) earlier: Option<&'a Sample>,
    pub(super) rates: &'a Rates,
    /// Why the latest answer is not newer.
    pub(super) lost: Option<&'a str>,
    pub(super) color: bool,
    /// Whether there are keys to be told of.
    pub(super) is_live: bool,
}

impl View<'_> {
    /// Lines that show everything.
    pub(super) fn height(&self) -> u16 {
        let trainings = u16::try_from(self.now.trainings.len().max(1)).unwrap_or(u16::MAX);
        // The table's header comes on top.
        trainings.saturating_add(HEAD_LINES + 1 + SERVING_LINES + self.version_lines())
    }

    fn version_lines(&self) -> u16 {
        u16::try_from(self.now.versions.len().min(MOST_VERSIONS)).unwrap_or(0)
    }

    /// Draws into an area, which may be smaller: then the last trainings are left out.
    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let footer = u16::from(self.is_live || self.lost.is_some());
        let [head, trainings, serving, keys] = Layout::vertical([
            Constraint::Length(HEAD_LINES),
            Constraint::Min(2),
            Constraint::Length(SERVING_LINES + self.version_lines()),
            Constraint::Length(footer),
        ])
        .areas(area);
        Paragraph::new(self.head()).render(head, buffer);
        self.trainings(trainings, buffer);
        self.serving(serving, buffer);
        Paragraph::new(self.keys()).render(keys, buffer);
    }

    fn style(&self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn title(&self) -> Style {
        self.style(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn head(&self) -> Vec<Line<'_>> {
        let info = &self.now.info;
        let up = info
            .start_time
            .and_then(|time| SystemTime::try_from(time).ok())
            .and_then(|began| SystemTime::now().duration_since(began).ok());
        let up = up.map_or(String::new(), |up| format!("  up {}", duration_text(up)));
        let live = match info.live_model.as_str() {
            "" => "no live version",
            name => name,
        };
        let text = format!(
            "visage {}  {}  {}{up}  {live}",
            info.version,
            self.server.trim_start_matches("http://"),
            info.device,
        );
        vec![Line::styled(text, self.title()), Line::default()]
    }

    fn trainings(&self, area: Rect, buffer: &mut Buffer) {
        let all = &self.now.trainings;
        let lines = usize::from(area.height.saturating_sub(1));
        let shown = if all.len() > lines {
            // One line says how many there are.
            lines.saturating_sub(1)
        } else {
            all.len()
        };
        let rows = all
            .iter()
            .take(shown)
            .map(|training| self.training(training));
        let widths = [
            Constraint::Min(12),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(BAR as u16 + 5),
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
            .header(Row::new(header).style(self.title()));
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
            0 => Some("none; start one with `visage train --dataset DIR`".to_owned()),
            count if count > shown => Some(format!("and {} more", count - shown)),
            _ => None,
        };
        if let Some(note) = note {
            let place = below(shown);
            Paragraph::new(note).render(place, buffer);
        }
    }

    fn training(&self, training: &Training) -> Row<'static> {
        let state = training.state();
        let color = match state {
            TrainingState::Running | TrainingState::Preparing | TrainingState::Stopping => {
                Color::Green
            }
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
        let number = |value: Option<f64>| value.map_or(String::new(), figure);
        Row::new([
            Cell::new(printable(names::training_id(&training.name))),
            Cell::new(state_name(state)).style(self.style(color)),
            Cell::new(epoch),
            Cell::new(done),
            Cell::new(number(loss)),
            Cell::new(number(last.map(|last| last.val_loss))),
            Cell::new(number(speed.filter(|speed| *speed > 0.0))),
            Cell::new(eta.map_or(String::new(), |eta| duration_text(std_duration(eta)))),
        ])
    }

    fn serving(&self, area: Rect, buffer: &mut Buffer) {
        let rates = self.rates;
        let mut lines = vec![Line::default()];
        match &self.now.page {
            Err(reason) => {
                lines.push(Line::styled("SERVING", self.title()));
                lines.push(Line::raw(printable(&format!(
                    "no metrics page ({reason}); name it with --metrics HOST:PORT"
                ))));
            }
            Ok(page) => {
                let failed = match rates.failed > 0.0 {
                    true => self.style(Color::Red),
                    false => Style::new(),
                };
                lines.push(Line::from(vec![
                    Span::styled("SERVING  ", self.title()),
                    Span::raw(format!("{} calls/s  ", figure(rates.answered))),
                    Span::styled(format!("{} failed/s  ", figure(rates.failed)), failed),
                    Span::raw(format!(
                        "{} images/s  queue {}  batch {}",
                        figure(rates.images),
                        page.value("visage_predict_queue_depth"),
                        rates.batch.map_or("-".to_owned(), figure),
                    )),
                ]));
                lines.push(Line::raw(format!(
                    "{:10}{:>10}{:>10}{:>10}",
                    "time", "p50", "p90", "p99"
                )));
                for (name, times) in &rates.times {
                    let quantile = |share| match times.quantile(share) {
                        Some(seconds) => milliseconds(seconds),
                        None => "-".to_owned(),
                    };
                    lines.push(Line::raw(format!(
                        "{name:10}{:>10}{:>10}{:>10}",
                        quantile(0.5),
                        quantile(0.9),
                        quantile(0.99)
                    )));
                }
            }
        }
        let text = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let [figures, versions] =
            Layout::vertical([Constraint::Length(text), Constraint::Min(0)]).areas(area);
        Paragraph::new(lines).render(figures, buffer);
        Paragraph::new(self.versions()).render(versions, buffer);
    }

    /// What each version has done, the busiest first.
    fn versions(&self) -> Vec<Line<'static>> {
        let before = |name: &str, version: &str| {
            let earlier = self.earlier?;
            let mut all = earlier.versions.iter();
            all.find(|found| found.name == name && found.version == version)
        };
        let mut found: Vec<(f64, Line<'static>)> = self
            .now
            .versions
            .iter()
            .map(|version| {
                let earlier = before(&version.name, &version.version);
                let elapsed = self.earlier.map(|earlier| self.now.taken - earlier.taken);
                let counted = earlier.map_or(0, |earlier| earlier.inference_count);
                let change = version.inference_count as f64 - counted as f64;
                let rate = per_second(change, elapsed.unwrap_or(Duration::ZERO));
                let name = format!("models/{}/versions/{}", version.name, version.version);
                let live = if name == self.now.info.live_model {
                    "live"
                } else {
                    ""
                };
                let line = format!(
                    "{:28}{:5}{:>10} images/s{:>12} images in all",
                    printable(&name),
                    live,
                    figure(rate),
                    version.inference_count
                );
                (rate, Line::raw(line))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        found.truncate(MOST_VERSIONS);
        found.into_iter().map(|(_, line)| line).collect()
    }

    fn keys(&self) -> Line<'_> {
        match self.lost {
            Some(cause) => Line::styled(
                printable(&format!("no answer ({cause}); trying again")),
                self.style(Color::Red),
            ),
            None => Line::raw("q quits"),
        }
    }
}

/// `====------  40%`.
fn bar(fraction: f64) -> String {
    let fraction = if fraction.is_finite() {
        fraction.clamp(0.0, 1.0)
    } else {
        0.0
    };
    // In range by the clamp.
    let full = (fraction * BAR as f64) as usize;
    format!(
        "{}{}{:>4.0}%",
        "=".repeat(full),
        "-".repeat(BAR - full),
        100.0 * fraction
    )
}

/// Four significant digits or so, as few characters as that takes.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", 1000.0 * seconds)
}

/// Text from a server may hold anything; control characters must not reach the terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
