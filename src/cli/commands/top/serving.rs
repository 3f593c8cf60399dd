//! Rates and durations of predictions, and the busiest versions.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    text::{Line, Span},
    widgets::{Paragraph, Widget},
};

use crate::{
    cli::{
        commands::top::{
            rates::per_second,
            text::{milliseconds, number},
            view::View,
        },
        output::printable,
    },
    telemetry::metrics::families,
};

/// Lines above the versions: an empty one, the rates, the header of the times, and four times.
const RATE_LINES: u16 = 7;
const MAX_VERSIONS: usize = 5;

pub(super) fn height(view: &View<'_>) -> u16 {
    RATE_LINES + u16::try_from(view.now.versions.len().min(MAX_VERSIONS)).unwrap_or(0)
}

pub(super) fn draw(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let rates = view.rates;
    let mut lines = vec![Line::default()];
    match &view.now.page {
        Err(reason) => {
            lines.push(Line::styled("SERVING", view.title()));
            lines.push(Line::raw(printable(&format!(
                "no metrics page ({reason}); set its address with --metrics HOST:PORT"
            ))));
        }
        Ok(page) => {
            let failed = match rates.failed > 0.0 {
                true => view.style(Color::Red),
                false => Style::new(),
            };
            lines.push(Line::from(vec![
                Span::styled("SERVING  ", view.title()),
                Span::raw(format!("{} calls/s  ", number(rates.succeeded))),
                Span::styled(format!("{} failed/s  ", number(rates.failed)), failed),
                Span::raw(format!(
                    "{} images/s  queue {}  batch {}",
                    number(rates.images),
                    page.value(families::PREDICT_QUEUE_DEPTH.name),
                    rates.batch.map_or("-".to_owned(), number),
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
    let [rates, below] =
        Layout::vertical([Constraint::Length(text), Constraint::Min(0)]).areas(area);
    Paragraph::new(lines).render(rates, buffer);
    Paragraph::new(versions(view)).render(below, buffer);
}

/// Images predicted by each version, the busiest first.
fn versions(view: &View<'_>) -> Vec<Line<'static>> {
    let before = |name: &str, version: &str| {
        let earlier = view.earlier?;
        let mut all = earlier.versions.iter();
        all.find(|found| found.name == name && found.version == version)
    };
    let mut found: Vec<(f64, Line<'static>)> = view
        .now
        .versions
        .iter()
        .map(|version| {
            let earlier = before(&version.name, &version.version);
            let elapsed = view.earlier.map(|earlier| view.now.taken - earlier.taken);
            let counted = earlier.map_or(0, |earlier| earlier.inference_count);
            let change = version.inference_count as f64 - counted as f64;
            let rate = per_second(change, elapsed.unwrap_or(Duration::ZERO));
            let name = format!("models/{}/versions/{}", version.name, version.version);
            let live = if name == view.now.info.live_model {
                "live"
            } else {
                ""
            };
            let line = format!(
                "{:28}{:5}{:>10} images/s{:>12} images in total",
                printable(&name),
                live,
                number(rate),
                version.inference_count
            );
            (rate, Line::raw(line))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.truncate(MAX_VERSIONS);
    found.into_iter().map(|(_, line)| line).collect()
}
