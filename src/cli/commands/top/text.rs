//! Numbers and bars as short texts, and a drawn buffer as plain text.

use ratatui::buffer::Buffer;

/// Width of a progress bar.
pub(super) const BAR_CELLS: usize = 8;

/// `===-----  40%`.
pub(super) fn bar(fraction: f64) -> String {
    let fraction = if fraction.is_finite() {
        fraction.clamp(0.0, 1.0)
    } else {
        0.0
    };
    // In range by the clamp.
    let full = (fraction * BAR_CELLS as f64) as usize;
    format!(
        "{}{}{:>4.0}%",
        "=".repeat(full),
        "-".repeat(BAR_CELLS - full),
        100.0 * fraction
    )
}

/// About four significant digits in few characters.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", 1000.0 * seconds)
}

/// The characters of a buffer, without colours and trailing spaces.
pub(super) fn plain_text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let cells = (area.left()..area.right()).filter_map(|x| buffer.cell((x, y)));
        let line: String = cells.map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
