//! Compares the names and shapes of a state dict with those of the network.

use std::collections::BTreeMap;

use super::{Error, StateDict, text::quoted};
use crate::model::layout::{COUNTER_SUFFIX, HEAD_PREFIX};

/// Names listed for each kind of difference before the rest is only counted.
const LISTED: usize = 10;

/// Tolerated differences between a file and the network; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Names ending in `.num_batches_tracked` may be missing or surplus.
    pub counters: bool,
    /// The head `fc.*` may be missing, as after [`without_head`].
    pub missing_head: bool,
}

/// Checks that names and shapes are the expected ones, except for what `allow` tolerates.
///
/// # Errors
/// [`Error::Shapes`] counts missing, surplus and misshapen names and lists up to ten of each.
pub(crate) fn check_shapes(
    found: &StateDict,
    expected: &[(String, Vec<usize>)],
    allow: &Mismatch,
) -> Result<(), Error> {
    let expected: BTreeMap<&str, &[usize]> = expected
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()))
        .collect();

    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for (name, shape) in &expected {
        match found.get(*name) {
            None if !allow.missing(name) => missing.push((*name).to_owned()),
            Some(tensor) if tensor.shape != *shape => {
                misshapen.push(format!("{name} is {:?}, expected {shape:?}", tensor.shape));
            }
            Some(_) | None => {}
        }
    }
    let surplus: Vec<String> = found
        .keys()
        .filter(|name| !expected.contains_key(name.as_str()) && !allow.surplus(name))
        .map(|name| quoted(name))
        .collect();

    let differences: Vec<String> = [
        ("missing", missing),
        ("surplus", surplus),
        ("misshapen", misshapen),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(kind, names)| listing(kind, &names))
    .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Shapes(differences.join("; ")))
}

/// The state dict without `fc.weight` and `fc.bias`, unless they are a regression head of one
/// output (`fc.weight` of shape `[1, 512]`).
pub(crate) fn without_head(mut state: StateDict) -> StateDict {
    let is_regressor = state
        .get("fc.weight")
        .is_some_and(|weight| weight.shape == [1, 512]);
    if !is_regressor {
        state.retain(|name, _| !name.starts_with(HEAD_PREFIX));
    }
    state
}

impl Mismatch {
    fn missing(self, name: &str) -> bool {
        self.surplus(name) || self.missing_head && name.starts_with(HEAD_PREFIX)
    }

    fn surplus(self, name: &str) -> bool {
        self.counters && name.ends_with(COUNTER_SUFFIX)
    }
}

fn listing(kind: &str, names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    let rest = names.len().saturating_sub(LISTED);
    if rest == 0 {
        return format!("{} {kind} ({shown})", names.len());
    }
    format!("{} {kind} ({shown} and {rest} more)", names.len())
}
