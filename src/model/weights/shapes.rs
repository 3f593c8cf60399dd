//! Compares a state dict's names and shapes with those a model expects.

use std::collections::BTreeMap;

use super::error::quoted;
use super::{Error, StateDict};

/// Names listed for each kind of difference before the rest is only counted.
const LISTED: usize = 10;
/// BatchNorm's batch counters, which files from before torch 0.4.1 lack and inference ignores.
pub(super) const COUNTER_SUFFIX: &str = ".num_batches_tracked";
pub(super) const HEAD_PREFIX: &str = "fc.";

/// Which differences between a file and the model are tolerated; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names ending in `.num_batches_tracked` may be missing or surplus.
    pub counters: bool,
    /// The head `fc.*` may be missing, as after [`without_head`].
    pub missing_head: bool,
}

/// Checks that names and shapes are exactly the expected ones, but for what `allow` tolerates.
///
/// # Errors
/// [`Error::Shapes`] lists missing, surplus and misshapen names, ten of each at most, and how many there are.
pub fn check_shapes(
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

/// The state dict without `fc.weight` and `fc.bias`, unless they are a regression head of one output already
/// (`fc.weight` of shape `[1, 512]`).
pub fn without_head(mut state: StateDict) -> StateDict {
    let is_regressor = state
        .get("fc.weight")
        .is_some_and(|weight| weight.shape == [1, 512]);
    if !is_regressor {
        state.retain(|name, _| !name.starts_with(HEAD_PREFIX));
    }
    state
}

/// Names and shapes of torchvision's ResNet18 with `outputs` outputs: 122 entries, in torchvision's order.
pub fn resnet18_shapes(outputs: usize) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![("conv1.weight".to_owned(), vec![64, 3, 7, 7])];
    batch_norm(&mut shapes, "bn1", 64);
    let mut inputs = 64;
    for (layer, channels) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let prefix = format!("layer{layer}.{block}");
            shapes.push((
                format!("{prefix}.conv1.weight"),
                vec![channels, inputs, 3, 3],
            ));
            batch_norm(&mut shapes, &format!("{prefix}.bn1"), channels);
            shapes.push((
                format!("{prefix}.conv2.weight"),
                vec![channels, channels, 3, 3],
            ));
            batch_norm(&mut shapes, &format!("{prefix}.bn2"), channels);
            if inputs != channels {
                shapes.push((
                    format!("{prefix}.downsample.0.weight"),
                    vec![channels, inputs, 1, 1],
                ));
                batch_norm(&mut shapes, &format!("{prefix}.downsample.1"), channels);
            }
            inputs = channels;
        }
    }
    shapes.push(("fc.weight".to_owned(), vec![outputs, 512]));
    shapes.push(("fc.bias".to_owned(), vec![outputs]));
    shapes
}

impl Mismatch {
    fn missing(self, name: &str) -> bool {
        self.surplus(name) || self.missing_head && name.starts_with(HEAD_PREFIX)
    }

    fn surplus(self, name: &str) -> bool {
        self.counters && name.ends_with(COUNTER_SUFFIX)
    }
}

fn batch_norm(shapes: &mut Vec<(String, Vec<usize>)>, prefix: &str, channels: usize) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        shapes.push((format!("{prefix}.{part}"), vec![channels]));
    }
    shapes.push((format!("{prefix}{COUNTER_SUFFIX}"), vec![]));
}

fn listing(kind: &str, names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    let rest = names.len().saturating_sub(LISTED);
    if rest == 0 {
        return format!("{} {kind} ({shown})", names.len());
    }
    format!("{} {kind} ({shown} and {rest} more)", names.len())
}
