//! Log lines as JSON objects with a stable schema (deploy/book/src/reference/logs.md).
//!
//! Every line has `timestamp`, `level`, `target` and `message`; lines of a sampled call have
//! `trace_id`. All other keys are fields of the event.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::telemetry::traces;

/// Keys of the schema; a field with such a name gets an underscore at its end.
const RESERVED: [&str; 4] = ["timestamp", "level", "target", "trace_id"];

#[derive(Debug)]
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        let level = metadata.level().as_str();
        // In this order, for people who read the lines.
        write!(
            writer,
            "{{\"timestamp\":\"{timestamp}\",\"level\":\"{level}\",\"target\":{},\"message\":{}",
            json!(target),
            json!(fields.message)
        )?;
        if let Some(id) = traces::current_id() {
            write!(writer, ",\"trace_id\":\"{id}\"")?;
        }
        writeln!(writer, "{}}}", fields.text)
    }
}

/// The fields of an event, written as the end of an object.
#[derive(Default)]
struct Fields {
    message: String,
    /// The target of a library that uses the crate `log`; its events have the same target
    /// otherwise.
    target: Option<String>,
    text: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                let text = value.as_str().map(str::to_owned);
                self.message = text.unwrap_or_else(|| value.to_string());
            }
            "log.target" => self.target = value.as_str().map(str::to_owned),
            // The position in the library's source.
            name if name.starts_with("log.") => {}
            name => {
                let name = name.strip_prefix("r#").unwrap_or(name);
                let end = if RESERVED.contains(&name) { "_" } else { "" };
                // Writing to a string cannot fail.
                write!(self.text, ",{}:{value}", json!(format!("{name}{end}"))).ok();
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinities, so they are text.
        let number = serde_json::Number::from_f64(value);
        let value = number.map_or_else(|| json!(value.to_string()), Value::Number);
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{Layer, fmt::MakeWriter, layer::SubscriberExt};

    use crate::telemetry::traces::{self, Traces};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines that `work` writes.
    fn lines(work: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines)
            .with_writer(written.clone())
            .boxed();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = written.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Scripts rely on these keys; a change here is a change of the documented schema.
    #[test]
    fn every_line_has_the_keys_of_the_schema() {
        let lines = lines(|| {
            let error = io::Error::other("no \"space\"\nleft");
            tracing::warn!(training = "faces-2", attempt = 3_u32, share = 0.5, done = false, %error, "died");
            tracing::info!(target: "visage::worker", level = "of something else", loss = f64::NAN, "");
        });
        let objects: Vec<serde_json::Map<String, Value>> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2, "{lines:?}");
        let timestamp = objects[0]["timestamp"].as_str().unwrap();
        let parsed = humantime::parse_rfc3339(timestamp).unwrap();
        assert!(parsed.elapsed().unwrap().as_secs() < 60, "{timestamp}");
        assert!(
            timestamp.ends_with('Z') && timestamp.len() == 27,
            "{timestamp}"
        );
        let without_time = |index: usize| {
            let mut object = objects[index].clone();
            object.remove("timestamp");
            Value::Object(object)
        };
        let expected = json!({
            "level": "WARN", "target": module_path!(), "message": "died",
            "training": "faces-2", "attempt": 3, "share": 0.5, "done": false, "error": "no \"space\"\nleft",
        });
        assert_eq!(without_time(0), expected);
        let expected = json!({
            "level": "INFO", "target": "visage::worker", "message": "", "level_": "of something else", "loss": "NaN",
        });
        assert_eq!(without_time(1), expected);
        let start = "{\"timestamp\":\"";
        assert!(
            lines.iter().all(|line| line.starts_with(start)),
            "{lines:?}"
        );
    }

    #[test]
    fn only_lines_of_a_sampled_call_have_its_trace() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Traces::for_test(0.0).0.continue_remote(header, "").unwrap();
        let lines = lines(|| {
            traces::in_scope(Some(&trace), || tracing::info!("inside"));
            tracing::info!("outside");
        });
        let inside: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(inside["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!lines[1].contains("trace_id"), "{}", lines[1]);
    }
}
