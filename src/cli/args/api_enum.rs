//! Enums of the API as flag values: `PROMOTE_IF_BETTER` as `if-better`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use prost_reflect::EnumDescriptor;

use crate::cli::output::json;

/// Parses a value of the enum `visage.v1.{name}` to its number. All values but UNSPECIFIED are
/// offered, so a value that is added to the API needs no change here.
pub(crate) fn parser(name: &str) -> impl TypedValueParser<Value = i32> {
    let values = flag_values(&json::enum_descriptor(name));
    let names: Vec<String> = values.iter().map(|(name, _)| name.clone()).collect();
    PossibleValuesParser::new(names).map(move |given| {
        let found = values.iter().find(|(name, _)| *name == given);
        found.map_or(0, |(_, number)| *number)
    })
}

fn flag_values(descriptor: &EnumDescriptor) -> Vec<(String, i32)> {
    values(descriptor)
        .into_iter()
        .map(|(name, number)| (name.to_ascii_lowercase().replace('_', "-"), number))
        .collect()
}

/// The values but UNSPECIFIED, without the common prefix of their names, and their numbers.
pub(crate) fn values(descriptor: &EnumDescriptor) -> Vec<(String, i32)> {
    let zero = descriptor.default_value();
    let prefix = zero.name().trim_end_matches("UNSPECIFIED");
    descriptor
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| {
            let short = value.name().trim_start_matches(prefix);
            (short.to_owned(), value.number())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_lower_case_without_prefix_and_unspecified() {
        let names = |name: &str| -> Vec<String> {
            let values = flag_values(&json::enum_descriptor(name));
            values.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("Promote"), ["always", "if-better", "never"]);
        assert_eq!(names("LossKind"), ["mse", "smooth-l1", "l1"]);
        assert_eq!(names("Precision"), ["auto", "f32", "bf16"]);
    }
}
