//! Log lines on stderr: coloured text for a person, one JSON object a line for a machine.
//!
//! stdout is never written to: a worker process sends its frames there.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text, with colours if stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Human,
    /// A JSON object on each line, with the event's fields at its top level.
    Json,
}

/// Why logging did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
pub fn init(filter: &str, format: Format) -> Result<(), Error> {
    let directives = parse(filter)?;
    static BEGUN: OnceLock<bool> = OnceLock::new();
    if *BEGUN.get_or_init(|| subscribe(directives, format)) {
        Ok(())
    } else {
        Err(Error::Taken)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    let words: Vec<&str> = filter
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    // A lone word is a target to the library, so "inof" would silence everything else, which nobody means.
    for word in &words {
        let is_for_a_part = word.contains(['=', '[']);
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

/// Whether the subscriber could be set, which works once in a process.
fn subscribe(filter: EnvFilter, format: Format) -> bool {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written (a full disk, a reader that left) is lost; the default would panic over it.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let result = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Human if std::io::stderr().is_terminal() => builder.try_init(),
        Format::Human => builder.with_ansi(false).try_init(),
    };
    result.is_ok()
}

/// The error and what caused it, without saying anything twice.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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
