//! The combinations of values of a sweep, as a grid or drawn at random.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::cli::args::spec_field::{Assignment, Field, split_assignment};

/// A field and its values.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    field: Field,
    /// At least one.
    values: Vec<Assignment>,
}

impl Axis {
    /// Parses `FIELD=VALUE,VALUE`; a comma inside brackets or quotes is part of a value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, values) = split_assignment(text)?;
        let field = Field::parse(path)?;
        let values: Result<Vec<Assignment>, String> = split_values(values)
            .into_iter()
            .map(|value| field.assign(value.trim()))
            .collect();
        Ok(Axis {
            values: values?,
            field,
        })
    }

    pub(super) fn field(&self) -> &Field {
        &self.field
    }
}

/// A field and the bounds of its random values.
#[derive(Clone, Debug)]
pub(super) struct Range {
    field: Field,
    low: f64,
    high: f64,
    is_integer: bool,
    is_logarithmic: bool,
}

impl Range {
    /// Parses `FIELD=LOW..HIGH` or `FIELD=LOW..HIGH:log`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (path, range) = split_assignment(text)?;
        let field = Field::parse(path)?;
        let Some(is_integer) = field.is_integer() else {
            return Err(format!(
                "`{path}` is not a number; list its values with --grid"
            ));
        };
        let (bounds, is_logarithmic) = match range.strip_suffix(":log") {
            Some(bounds) => (bounds, true),
            None => (range, false),
        };
        let form = "expected FIELD=LOW..HIGH, such as `optimizer.learning_rate=1e-5..1e-2:log`";
        let (low, high) = bounds.split_once("..").ok_or(form)?;
        // The assignment checks the type of the field.
        let bound = |text: &str| {
            field.assign(text)?;
            text.parse::<f64>().map_err(|_| form.to_owned())
        };
        let (low, high) = (bound(low.trim())?, bound(high.trim())?);
        if low >= high {
            return Err(format!("the lower bound {low} must be below {high}"));
        }
        if is_logarithmic && low <= 0.0 {
            return Err(format!(
                "with `:log` both bounds must be above 0, got {low}"
            ));
        }
        Ok(Range {
            field,
            low,
            high,
            is_integer,
            is_logarithmic,
        })
    }

    pub(super) fn field(&self) -> &Field {
        &self.field
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Result<Assignment, String> {
        let drawn = match self.is_logarithmic {
            true => random.random_range(self.low.ln()..=self.high.ln()).exp(),
            false => random.random_range(self.low..=self.high),
        };
        let text = match self.is_integer {
            true => format!("{:.0}", drawn.clamp(self.low, self.high)),
            // More digits make no difference to a search and are hard to read.
            false => format!("{drawn:.3e}"),
        };
        self.field.assign(&text)
    }
}

/// Number of combinations of a grid; `None` on overflow.
pub(super) fn grid_size(axes: &[Axis]) -> Option<usize> {
    axes.iter()
        .try_fold(1usize, |size, axis| size.checked_mul(axis.values.len()))
}

/// All combinations; the values of the last axis change fastest.
pub(super) fn grid(axes: &[Axis]) -> Vec<Vec<Assignment>> {
    let mut combinations = vec![Vec::new()];
    for axis in axes {
        combinations = combinations
            .iter()
            .flat_map(|shorter: &Vec<Assignment>| {
                axis.values.iter().map(|value| {
                    let mut longer = shorter.clone();
                    longer.push(value.clone());
                    longer
                })
            })
            .collect();
    }
    combinations
}

/// Combinations drawn from the axes' values and the ranges. With the same seed, a smaller count
/// yields a prefix of a larger one.
pub(super) fn random(
    axes: &[Axis],
    ranges: &[Range],
    count: usize,
    seed: u64,
) -> Result<Vec<Vec<Assignment>>, String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut combination = |_| {
        let mut fields: Vec<Assignment> = axes
            .iter()
            .map(|axis| axis.values[random.random_range(0..axis.values.len())].clone())
            .collect();
        for range in ranges {
            fields.push(range.draw(&mut random)?);
        }
        Ok(fields)
    };
    (0..count).map(&mut combination).collect()
}

/// Splits at commas outside brackets and quotes.
fn split_values(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut is_quoted, mut start) = (0usize, false, 0);
    for (position, letter) in text.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '[' | '{' if !is_quoted => depth += 1,
            ']' | '}' if !is_quoted => depth = depth.saturating_sub(1),
            ',' if !is_quoted && depth == 0 => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(combinations: &[Vec<Assignment>]) -> Vec<String> {
        let text = |fields: &Vec<Assignment>| {
            let texts: Vec<&str> = fields.iter().map(Assignment::text).collect();
            texts.join(" ")
        };
        combinations.iter().map(text).collect()
    }

    #[test]
    fn a_grid_has_all_combinations() {
        let axes = [
            Axis::parse("batch_size=16,32").unwrap(),
            Axis::parse(r#"trainable=["layer4","fc"],ALL"#).unwrap(),
        ];
        assert_eq!(grid_size(&axes), Some(4));
        assert_eq!(
            texts(&grid(&axes)),
            [
                r#"16 ["layer4","fc"]"#,
                "16 ALL",
                r#"32 ["layer4","fc"]"#,
                "32 ALL"
            ]
        );
    }

    #[test]
    fn draws_are_within_their_range_and_repeatable() {
        let axes = [Axis::parse("batch_size=16,32").unwrap()];
        let ranges = [
            Range::parse("optimizer.learning_rate=1e-5..1e-2:log").unwrap(),
            Range::parse("max_epochs=2..5").unwrap(),
        ];
        let drawn = random(&axes, &ranges, 200, 1).unwrap();
        let number = |run: &Vec<Assignment>, field: usize| run[field].json().as_f64().unwrap();
        let rates: Vec<f64> = drawn.iter().map(|run| number(run, 1)).collect();
        assert!(rates.iter().all(|rate| (1e-5..=1e-2).contains(rate)));
        // Each of three orders of magnitude has its share.
        let low = rates.iter().filter(|rate| **rate < 1e-4).count();
        assert!((40..100).contains(&low), "{low}");
        let mut epochs: Vec<f64> = drawn.iter().map(|run| number(run, 2)).collect();
        epochs.sort_by(f64::total_cmp);
        epochs.dedup();
        assert_eq!(epochs, [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(
            texts(&random(&axes, &ranges, 3, 1).unwrap()),
            texts(&drawn[..3])
        );
        assert_ne!(
            texts(&random(&axes, &ranges, 3, 2).unwrap()),
            texts(&drawn[..3])
        );
    }

    #[test]
    fn ranges_need_a_number_field_and_ordered_bounds() {
        let error = |text: &str| Range::parse(text).unwrap_err();
        assert_eq!(
            error("promote=1..2"),
            "`promote` is not a number; list its values with --grid"
        );
        assert_eq!(
            error("batch_size=32..16"),
            "the lower bound 32 must be below 16"
        );
        assert!(error("batch_size=1.5..16").starts_with("`batch_size` must be an integer"));
        assert!(error("batch_size=16").starts_with("expected FIELD=LOW..HIGH"));
        assert!(error("optimizer.learning_rate=0..1:log").contains("above 0"));
    }
}
