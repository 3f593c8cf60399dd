//! What can be wrong with the settings, and where a value came from.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

/// Where a value came from, later ones winning over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// This file.
    File(PathBuf),
    /// This variable.
    Variable(String),
    /// This flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What can be wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that its setting does not allow.
    #[error("`{setting}` from {source_name} is `{value}`, expected {allowed}")]
    Invalid {
        /// The setting or variable.
        setting: String,
        /// Where the value came from.
        source_name: Source,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two values that cannot stand together.
    #[error("{first} {rule} {second}")]
    Contradiction {
        /// The one value.
        first: Box<Stated>,
        /// What the first must be to the second.
        rule: &'static str,
        /// The other value.
        second: Box<Stated>,
    },
    /// An address that others can reach without a limit to the files they may name.
    #[error(
        "`{listener}` is {address}, which is not a loopback address, so `{setting}` must name the directories that clients may read from: set it in \
         the file, or with --{flag}",
        flag = setting.replace('_', "-")
    )]
    RootsRequired {
        /// The setting that is missing.
        setting: &'static str,
        /// The listener.
        listener: &'static str,
        /// Its address.
        address: SocketAddr,
    },
    /// A key of the file that names no setting.
    #[error("{path}: there is no setting `{key}`; did you mean `{nearest}`?", path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The setting whose name is nearest.
        nearest: String,
    },
    /// A variable that begins with `VISAGE_` and names no setting.
    #[error("the variable `{name}` names no setting; did you mean `{nearest}`?")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The variable whose name is nearest.
        nearest: String,
    },
    /// A variable that is not text.
    #[error("the variable `{0}` is not valid UTF-8")]
    NotUnicode(String),
    /// The file cannot be read.
    #[error("cannot read the settings: {0}")]
    Read(#[source] io::Error),
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {cause}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        cause: Box<toml::de::Error>,
    },
}

/// A setting with its value and where that came from, for a message.
#[derive(Debug)]
pub struct Stated {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            value,
            source,
        } = self;
        write!(f, "`{setting}` = {value} ({source})")
    }
}

/// The candidate that needs the fewest changed letters.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> String {
    candidates
        .min_by_key(|candidate| edit_distance(name, candidate))
        .unwrap_or_default()
}

/// Levenshtein's distance, one row at a time.
pub(crate) fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
