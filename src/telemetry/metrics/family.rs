//! The declaration of a metric.

#[derive(Debug)]
pub struct Family {
    /// The full name, as exported.
    pub name: &'static str,
    pub kind: Kind,
    pub(super) unit: Unit,
    /// In the order in which the recording functions pass the values.
    pub labels: &'static [Label],
    /// The HELP text: one sentence.
    pub help: &'static str,
}

impl Family {
    /// The recorder holds this metric in microseconds and the exporter converts it: a counter of
    /// the recorder is a whole number, and whole seconds would lose shorter work.
    pub(crate) fn is_kept_in_microseconds(&self) -> bool {
        self.kind == Kind::Counter && self.unit == Unit::Seconds
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Starts at 0 with the process and never decreases.
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

/// The value of a gauge before it is first set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Zero,
    /// No value, where 0 would be wrong (a loss before the first epoch).
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A number of things, or a number without a unit.
    Count,
    Seconds,
    Bytes,
    Years,
    SquareYears,
    ImagesPerSecond,
    /// A share, 0 to 1.
    Ratio,
}

impl Unit {
    /// The end of a name in this unit; empty for a count.
    #[cfg(test)]
    pub(super) const fn suffix(self) -> &'static str {
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

#[derive(Debug)]
pub struct Label {
    pub key: &'static str,
    /// All values; empty if they are not known at compile time.
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
