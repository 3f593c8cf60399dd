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

/// Directory of TensorBoard's event files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventDirectory {
    /// `runs` in the data directory.
    InDataDir,
    At(PathBuf),
    Off,
}

impl EventDirectory {
    /// The directory, for a server with this data directory.
    #[must_use]
    pub(crate) fn path(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::InDataDir => Some(data_dir.join("runs")),
            Self::At(directory) => Some(directory.clone()),
            Self::Off => None,
        }
    }
}

impl fmt::Display for EventDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InDataDir => f.write_str("on"),
            Self::At(directory) => write!(f, "{}", directory.display()),
            Self::Off => f.write_str("off"),
        }
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
