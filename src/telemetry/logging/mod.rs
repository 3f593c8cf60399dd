//! Log lines on stderr: coloured text for a person, one JSON object a line for a machine.
//!
//! stdout is never written to: a worker process sends its frames there. What is logged can be changed while the process runs: [`set_filter`].

mod json;

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Longest filter that is read, in bytes.
const LONGEST_FILTER: usize = 2048;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text, with colours if stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Human,
    /// A JSON object on each line, with the event's fields at its top level.
    Json,
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The filter cannot be read.
    #[error("the log filter {filter:?} is not a level or a list such as \"info,visage=debug\"")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// A word stands where only a level can, most likely a misspelt one.
    #[error(
        "the log filter names {word:?}, which is none of off, error, warn, info, debug and trace"
    )]
    Level {
        /// The word as given.
        word: String,
    },
    /// There is no level at all.
    #[error(
        "the log filter is empty: give a level such as \"info\" or a list such as \"info,visage=debug\""
    )]
    Empty,
    /// Nobody needs that many levels.
    #[error("the log filter has {length} bytes, more than the {LONGEST_FILTER} that are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// This process does not log, so there is nothing to change.
    #[error("this process does not log by a filter of its own")]
    NotBegun,
    /// Something else has begun to log in this process.
    #[error("logging was already set up in this process by something else")]
    Taken,
}

/// Begins logging for the whole process. Every call after the first success changes nothing and succeeds if its filter can be read.
///
/// `filter` is a level (`"info"`) or a list of levels for parts of the program (`"warn,visage=debug"`).
///
/// # Errors
///
/// [`Error::Filter`] or [`Error::Level`] for a filter that cannot be read, [`Error::Taken`] if another library logs already.
pub(crate) fn init(filter: &str, format: Format) -> Result<(), Error> {
    let directives = parse(filter)?;
    let begun = CONTROL.get_or_init(|| {
        let control = |handle| Control {
            handle,
            filter: Mutex::new(filter.trim().to_owned()),
        };
        subscribe(directives, format).map(control)
    });
    begun.as_ref().map(drop).ok_or(Error::Taken)
}

/// What is logged now, as it was given; `None` when this process does not log by [`init`].
#[must_use]
pub(crate) fn filter() -> Option<String> {
    let control = CONTROL.get()?.as_ref()?;
    Some(control.filter().clone())
}

/// Changes what is logged from now on, and returns what was logged before.
///
/// # Errors
///
/// [`Error::NotBegun`] before [`init`], and those of a filter that cannot be read.
pub(crate) fn set_filter(filter: &str) -> Result<String, Error> {
    let control = CONTROL.get().and_then(Option::as_ref);
    let control = control.ok_or(Error::NotBegun)?;
    let directives = parse(filter)?;
    let new = filter.trim();
    let mut current = control.filter();
    let reloaded = control.handle.reload(directives);
    reloaded.map_err(|_| Error::NotBegun)?;
    Ok(std::mem::replace(&mut *current, new.to_owned()))
}

/// How the filter of this process is changed; nothing when something else logs.
static CONTROL: OnceLock<Option<Control>> = OnceLock::new();

struct Control {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Mutex<String>,
}

impl Control {
    fn filter(&self) -> std::sync::MutexGuard<'_, String> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    if filter.len() > LONGEST_FILTER {
        return Err(Error::TooLong {
            length: filter.len(),
        });
    }
    let words: Vec<&str> = filter
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return Err(Error::Empty);
    }
    // A lone word is a target to the library, so "inof" would silence everything else, which nobody means.
    for word in &words {
        // Without a level behind its sign, a target would be told everything.
        let is_for_a_part = word.contains(['=', '[']) && !word.ends_with('=');
        if !is_for_a_part && word.parse::<LevelFilter>().is_err() {
            return Err(Error::Level {
                word: (*word).to_owned(),
            });
        }
    }
    EnvFilter::try_new(words.join(",")).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// Sets the subscriber, which works once in a process.
fn subscribe(filter: EnvFilter, format: Format) -> Option<reload::Handle<EnvFilter, Registry>> {
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        // A line that cannot be written (a full disk, a reader that left) is lost; the default would panic over it.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let lines = match format {
        Format::Json => lines.event_format(json::Lines).boxed(),
        Format::Human if std::io::stderr().is_terminal() => lines.boxed(),
        Format::Human => lines.with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().is_ok().then_some(handle)
}

/// The error and what caused it, without saying anything twice.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_and_lists_are_filters() {
        for filter in [
            "info",
            "WARN",
            "off",
            "warn,visage=debug",
            "info, h2=off",
            "visage[training]=trace",
        ] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn misspelt_level_is_named() {
        let error = parse("visage=debug,inof").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the log filter names \"inof\", which is none of off, error, warn, info, debug and trace"
        );
    }

    #[test]
    fn misspelt_level_of_a_target_is_refused() {
        let error = parse("visage=loud").unwrap_err();
        assert!(matches!(error, Error::Filter { .. }), "{error}");
        let error = parse("info,visage=").unwrap_err();
        assert!(matches!(error, Error::Level { word } if word == "visage="));
    }

    #[test]
    fn filter_without_a_level_or_with_too_many_is_refused() {
        assert!(matches!(parse(" , "), Err(Error::Empty)));
        let long = "visage=debug,".repeat(200);
        let error = parse(&long).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the log filter has 2600 bytes, more than the 2048 that are read"
        );
    }

    #[test]
    fn filter_changes_while_the_process_runs() {
        assert!(matches!(set_filter("info"), Err(Error::NotBegun)));
        assert_eq!(filter(), None);
        init("warn", Format::Json).unwrap();
        assert!(!tracing::enabled!(Level::INFO));
        assert_eq!(set_filter(" info,visage::store=debug ").unwrap(), "warn");
        assert!(tracing::enabled!(Level::INFO));
        assert!(!tracing::enabled!(Level::DEBUG));
        assert!(tracing::enabled!(target: "visage::store", Level::DEBUG));
        assert!(set_filter("loud").is_err());
        assert_eq!(filter().as_deref(), Some("info,visage::store=debug"));
        assert_eq!(set_filter("off").unwrap(), "info,visage::store=debug");
        assert!(!tracing::enabled!(Level::ERROR));
    }

    #[test]
    fn second_init_changes_nothing_and_succeeds() {
        assert!(init("off", Format::Human).is_ok());
        assert!(init("off", Format::Json).is_ok());
        assert!(
            init("nonsense", Format::Human).is_err(),
            "a bad filter is refused even then"
        );
    }
}
