//! Errors of the settings, and the sources of values.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

/// The source of a value; later variants override earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueSource {
    Default,
    File(PathBuf),
    Variable(String),
    /// The flag with its dashes.
    Flag(String),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{setting}` from {source_name} is `{value}`, expected {allowed}")]
    Invalid {
        setting: String,
        source_name: ValueSource,
        value: String,
        allowed: String,
    },
    #[error("{first} {rule} {second}")]
    Contradiction {
        first: Box<SettingValue>,
        /// The required relation.
        rule: &'static str,
        second: Box<SettingValue>,
    },
    /// An address that other machines reach, without a limit on the files that clients may name.
    #[error(
        "`{listener}` is {address}, which is not a loopback address, so `{setting}` must name the directories that clients may read from: set it in \
         the file, or with --{flag}",
        flag = setting.replace('_', "-")
    )]
    RootsRequired {
        setting: &'static str,
        listener: &'static str,
        address: SocketAddr,
    },
    /// An address that other machines reach, without authentication.
    #[error(
        "`{listener}` is {address}, which is not a loopback address, so clients must be authenticated: set `auth`, for example with --auth tokens and \
         --tls-cert and --tls-key, or allow every client everything with --insecure-no-auth"
    )]
    AuthRequired {
        listener: &'static str,
        address: SocketAddr,
    },
    /// Credentials that other machines could read.
    #[error(
        "`{listener}` is {address}, which is not a loopback address, so credentials need TLS: set `tls_cert` and `tls_key`, or, if a proxy ends TLS, \
         --insecure-plaintext"
    )]
    TlsRequired {
        listener: &'static str,
        address: SocketAddr,
    },
    #[error(
        "{path}: the server `{name}` has the address {address:?}; expected a name of letters, digits, `-`, `_` and `.`, and the address host:port, https://host:port or unix:/path",
        path = path.display()
    )]
    Server {
        path: PathBuf,
        name: String,
        address: String,
    },
    #[error("{path}: the current server `{name}` has no entry; add [servers.{name}], or change `current`", path = path.display())]
    CurrentServer { path: PathBuf, name: String },
    #[error(
        "`cors_origins` must name origins when `auth` is on, got `*`; list the origins of the pages that may use this server"
    )]
    AllOrigins,
    #[error("`{setting}` requires `{required}`; set it too")]
    Incomplete {
        setting: &'static str,
        required: &'static str,
    },
    #[error("{path}: unknown setting `{key}`; did you mean `{nearest}`?", path = path.display())]
    UnknownKey {
        path: PathBuf,
        key: String,
        nearest: String,
    },
    #[error("unknown variable `{name}`; did you mean `{nearest}`?")]
    UnknownVariable { name: String, nearest: String },
    #[error("the variable `{0}` is not valid UTF-8")]
    NotUnicode(String),
    #[error("failed to read the settings: {0}")]
    Read(#[source] io::Error),
    #[error("{path} is not valid TOML: {cause}", path = path.display())]
    Syntax {
        path: PathBuf,
        cause: Box<toml::de::Error>,
    },
}

/// A setting with its value and source, for a message.
#[derive(Debug)]
pub(crate) struct SettingValue {
    pub setting: &'static str,
    pub value: String,
    pub source: ValueSource,
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            value,
            source,
        } = self;
        write!(f, "`{setting}` = {value} ({source})")
    }
}

/// The candidate with the smallest edit distance.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> String {
    candidates
        .min_by_key(|candidate| edit_distance(name, candidate))
        .unwrap_or_default()
}

/// Levenshtein distance, one row at a time.
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
