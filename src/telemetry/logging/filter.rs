use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
};

/// Maximum length of a filter in bytes.
const MAX_FILTER: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the log filter must be a level or a list such as \"info,visage=debug\", got {filter:?}"
    )]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    /// Most likely a misspelt level.
    #[error(
        "levels of the log filter must be off, error, warn, info, debug or trace, got {word:?}"
    )]
    Level { word: String },
    #[error(
        "the log filter must not be empty; give a level such as \"info\" or a list such as \"info,visage=debug\""
    )]
    Empty,
    #[error("the log filter must have at most {MAX_FILTER} bytes, got {length}")]
    TooLong { length: usize },
    /// Logging was not started by this program, so the filter cannot be changed.
    #[error("the logging of this process is not initialized")]
    NotInitialized,
    #[error("the logging of this process was already initialized by another library")]
    AlreadyInitialized,
}

pub(super) fn parse(filter: &str) -> Result<EnvFilter, Error> {
    if filter.len() > MAX_FILTER {
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
    // The library reads a single word as a target, so the misspelt level "inof" would silence
    // everything else. A target without a level would enable all levels.
    for word in &words {
        let has_target = word.contains(['=', '[']) && !word.ends_with('=');
        if !has_target && word.parse::<LevelFilter>().is_err() {
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
