//! What is declared about a metric: its name, kind, unit, labels and meaning.
//!
//! The declarations themselves are in [`metrics`](super::metrics).

/// One metric: everything Prometheus and a reader of the README are told about it.
#[derive(Debug)]
pub struct Family {
    /// The full name, as exported.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What the numbers count.
    pub unit: Unit,
    /// The labels, in the order in which the recording functions give their values.
    pub labels: &'static [Label],
    /// One sentence for the person who reads a graph: the HELP text.
    pub help: &'static str,
}

impl Family {
    /// Whether the recorder holds this metric in microseconds and the exporter divides it: a counter of the recorder is a whole
    /// number, and whole seconds would hide all work that is shorter.
    pub(super) fn is_kept_in_microseconds(&self) -> bool {
        self.kind == Kind::Counter && self.unit == Unit::Seconds
    }
}

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down, and exists from the start if its labels are known.
    Gauge(Start),
    /// A distribution, with the upper bounds of its buckets in the metric's unit, ascending.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The type as Prometheus names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What a gauge shows before anything has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// 0, where that is the truth (an empty queue).
    Zero,
    /// Nothing, where 0 would be a lie (a loss before the first epoch).
    Absent,
}

/// The unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number of things, or a pure number.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Years of age.
    Years,
    /// Years of age, squared.
    SquareYears,
    /// Images in each second.
    ImagesPerSecond,
    /// A share, 0 to 1.
    Ratio,
}

impl Unit {
    /// How a name says this unit; empty for a plain number.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Years => "years",
            Self::SquareYears => "square_years",
            Self::ImagesPerSecond => "images_per_second",
            Self::Ratio => "ratio",
        }
    }
}

/// A label's key and the values that it can have.
#[derive(Debug)]
pub struct Label {
    /// The key.
    pub key: &'static str,
    /// All values, or nothing if they are not known at compile time.
    pub values: &'static [&'static str],
}

impl Label {
    pub(super) const fn open(key: &'static str) -> Self {
        Self { key, values: &[] }
    }

    pub(super) const fn one_of(key: &'static str, values: &'static [&'static str]) -> Self {
        Self { key, values }
    }
}
