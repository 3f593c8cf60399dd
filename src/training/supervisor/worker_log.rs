//! Forwarding of a worker's log lines to the log of the server.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
    process::ChildStderr,
    time::Instant,
};

/// Longer lines are cut, in bytes.
const MAX_LINE: usize = 4_096;
/// Lines that are forwarded in a second; the rest is counted and dropped.
const MAX_LINES_PER_SECOND: u32 = 200;

/// Forwards log lines until the worker closes its standard error. Memory and log are bounded
/// whatever the process writes.
pub(super) async fn forward_log(stderr: ChildStderr, training: String) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut second, mut lines, mut dropped) = (Instant::now(), 0, 0_u64);
    while let Ok(true) = next_line(&mut stderr, &mut line).await {
        if second.elapsed() >= Duration::from_secs(1) {
            report_dropped(&training, dropped);
            (second, lines, dropped) = (Instant::now(), 0, 0);
        }
        if lines == MAX_LINES_PER_SECOND {
            dropped += 1;
            continue;
        }
        lines += 1;
        relay(&training, &String::from_utf8_lossy(&line));
    }
    report_dropped(&training, dropped);
}

fn report_dropped(training: &str, dropped: u64) {
    if dropped > 0 {
        tracing::warn!(target: "visage::worker", training, dropped, "dropped worker log lines over the rate limit");
    }
}

/// Logs a line at its own level. Lines that are not in the log format come from libraries and are
/// logged at INFO.
fn relay(training: &str, line: &str) {
    let (level, text) = parse_log_line(line).unwrap_or((tracing::Level::INFO, line.to_owned()));
    match level {
        tracing::Level::ERROR => tracing::error!(target: "visage::worker", training, "{text}"),
        tracing::Level::WARN => tracing::warn!(target: "visage::worker", training, "{text}"),
        tracing::Level::INFO => tracing::info!(target: "visage::worker", training, "{text}"),
        tracing::Level::DEBUG => tracing::debug!(target: "visage::worker", training, "{text}"),
        tracing::Level::TRACE => tracing::trace!(target: "visage::worker", training, "{text}"),
    }
}

/// Returns the level of a JSON log line, and its message followed by its fields.
fn parse_log_line(line: &str) -> Option<(tracing::Level, String)> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let level = fields.get("level")?.as_str()?.parse().ok()?;
    let mut text = fields.get("message")?.as_str()?.to_owned();
    let others = fields
        .iter()
        .filter(|(name, _)| !["level", "message", "target", "timestamp"].contains(&name.as_str()));
    for (name, value) in others {
        let value = value.as_str().map_or(value.to_string(), str::to_owned);
        text.push_str(&format!(" {name}={value}"));
    }
    Some((level, text))
}

/// Reads at most [`MAX_LINE`] bytes of the next line and skips the rest; false at the end.
async fn next_line(
    source: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    let mut has_started = false;
    loop {
        let chunk = source.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(has_started);
        }
        has_started = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = MAX_LINE - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        source.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn log_lines_are_cut_and_the_next_one_is_whole() {
        let long = "x".repeat(3 * MAX_LINE);
        let text = format!("first\n{long}\n\nlast");
        let mut source = BufReader::with_capacity(100, text.as_bytes());
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while next_line(&mut source, &mut line).await.unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(lines, ["first", &long[..MAX_LINE], "", "last"]);
    }

    #[test]
    fn log_lines_of_the_worker_keep_their_level_and_fields() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","message":"the training failed","error":"no space","target":"visage"}"#;
        let expected = "the training failed error=no space".to_owned();
        assert_eq!(
            parse_log_line(line),
            Some((tracing::Level::ERROR, expected))
        );
        assert_eq!(parse_log_line("a library's own words"), None);
    }
}
