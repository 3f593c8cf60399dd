//! Settings with a fixed set of values.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Declares an enum whose values have names in settings.
macro_rules! named_values {
    ($(#[$attribute:meta])* $type:ident: $count:literal { $($(#[$of_value:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $type {
            $($(#[$of_value])* $value,)*
        }

        impl $type {
            pub(super) const ALL: [Self; $count] = [$(Self::$value,)*];

            /// The name in settings.
            #[must_use]
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }

            /// The value of this name.
            #[must_use]
            pub(crate) fn parse(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == text)
            }
        }
    };
}

named_values! {
    /// Precision of predictions.
    Precision: 5 {
        /// The fastest precision that changes ages little enough.
        Auto = "auto",
        F32 = "f32",
        Bf16 = "bf16",
        F16 = "f16",
        /// f32 with large filters stored in f16.
        F16Weights = "f16-weights",
    }
}

named_values! {
    /// Least severe level that is logged.
    LogLevel: 5 {
        /// Someone must act.
        Error = "error",
        /// The server recovered.
        Warn = "warn",
        /// Milestones for operators.
        Info = "info",
        /// Details for developers.
        Debug = "debug",
        Trace = "trace",
    }
}

named_values! {
    /// Format of log lines.
    LogFormat: 3 {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// A file or directory that has a default place in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// The default place.
    InDataDir,
    At(PathBuf),
    Off,
}

impl Location {
    /// The path, for a server with this data directory and the default `name`.
    #[must_use]
    pub(crate) fn path(&self, data_dir: &Path, name: &str) -> Option<PathBuf> {
        match self {
            Self::InDataDir => Some(data_dir.join(name)),
            Self::At(path) => Some(path.clone()),
            Self::Off => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InDataDir => f.write_str("on"),
            Self::At(path) => write!(f, "{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

/// The credentials that the server accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthMethods {
    /// Tokens and users of the token file.
    pub(crate) tokens: bool,
    /// Client certificates.
    pub(crate) certificates: bool,
    /// JSON Web Tokens of an OpenID Connect issuer.
    pub(crate) oidc: bool,
}

impl AuthMethods {
    const NAMES: [&'static str; 3] = ["tokens", "certificates", "oidc"];

    /// Without a method, every client may do everything.
    #[must_use]
    pub(crate) fn is_off(self) -> bool {
        self == Self::default()
    }

    /// The names of the methods.
    #[must_use]
    pub(crate) fn names(self) -> Vec<String> {
        let set = [self.tokens, self.certificates, self.oidc];
        let named = Self::NAMES.iter().zip(set).filter(|(_, set)| *set);
        named.map(|(name, _)| (*name).to_owned()).collect()
    }

    /// `off` alone, or the names of methods.
    #[must_use]
    pub(super) fn parse(names: &[String]) -> Option<Self> {
        let mut methods = Self::default();
        match names {
            [] => return None,
            [off] if off == "off" => return Some(methods),
            _ => {}
        }
        for name in names {
            match name.as_str() {
                "tokens" => methods.tokens = true,
                "certificates" => methods.certificates = true,
                "oidc" => methods.oidc = true,
                _ => return None,
            }
        }
        Some(methods)
    }
}

/// Compute device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// The first GPU, or the CPU without one.
    Auto,
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}
