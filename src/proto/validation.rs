//! Validation of request fields: reads values, fills in defaults and collects all violations.

use std::ops::RangeInclusive;

/// A request field whose value is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, such as `spec.optimizer.learning_rate`.
    pub field: String,
    /// The rule and the value that breaks it.
    pub description: String,
}

/// Collects violations while fields are read, so that a client sees all of them at once.
#[derive(Debug, Default)]
pub struct Check {
    violations: Vec<Violation>,
}

impl Check {
    pub fn refuse(&mut self, field: &str, description: impl Into<String>) {
        self.violations.push(Violation {
            field: field.to_owned(),
            description: description.into(),
        });
    }

    pub fn integer(
        &mut self,
        field: &str,
        given: Option<u32>,
        default: u32,
        allowed: RangeInclusive<u32>,
    ) -> u32 {
        let value = given.unwrap_or(default);
        if !allowed.contains(&value) {
            let (least, most) = (allowed.start(), allowed.end());
            self.refuse(
                field,
                format!("must be from {least} to {most}, got {value}"),
            );
        }
        value
    }

    pub fn number(&mut self, field: &str, given: Option<f64>, default: f64, allowed: Range) -> f64 {
        let value = given.unwrap_or(default);
        if !(allowed.contains)(value) {
            self.refuse(field, format!("must be {}, got {value}", allowed.rule));
        }
        value
    }

    /// Returns the value of an enum field, or the default if it is unspecified.
    pub fn choice<E>(&mut self, field: &str, given: i32, default: E) -> E
    where
        E: TryFrom<i32> + Default + PartialEq,
    {
        match E::try_from(given) {
            Ok(value) if value == E::default() => default,
            Ok(value) => value,
            Err(_) => {
                self.refuse(
                    field,
                    format!("must be a value that this server knows, got {given}"),
                );
                default
            }
        }
    }

    /// Returns the value that was read if no field was refused.
    ///
    /// # Errors
    /// All violations.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.violations.is_empty() {
            Ok(value)
        } else {
            Err(self.violations)
        }
    }
}

/// A range of numbers with the wording of its rule.
#[derive(Clone, Copy)]
pub struct Range {
    pub contains: fn(f64) -> bool,
    pub rule: &'static str,
}

impl Range {
    pub const POSITIVE: Range = Range {
        contains: |value| value > 0.0 && value.is_finite(),
        rule: "above 0 and finite",
    };
    pub const NOT_NEGATIVE: Range = Range {
        contains: |value| value >= 0.0 && value.is_finite(),
        rule: "0 or more and finite",
    };
    pub const BELOW_ONE: Range = Range {
        contains: |value| (0.0..1.0).contains(&value),
        rule: "from 0 to below 1",
    };
    pub const SHARE: Range = Range {
        contains: |value| (0.0..=1.0).contains(&value),
        rule: "from 0 to 1",
    };
}
