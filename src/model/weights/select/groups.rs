//! Dictionaries of tensors, and places in them.

use std::collections::BTreeMap;

/// The top level of a file, in keys and messages.
pub(crate) const TOP: &str = ".";

/// The tensors to read from a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Selection<'a> {
    /// A bare state dict of any network, or one under `state_dict` or `model`.
    Whole,
    /// A ResNet18 at any depth.
    ResNet18 {
        /// The place to take it from, if several fit.
        key: Option<&'a str>,
    },
}

/// A dictionary that has tensors.
#[derive(Debug, Default)]
pub(crate) struct Group<'a> {
    /// Each path of keys that leads to it, joined by dots; [`TOP`] for the top level.
    pub(crate) paths: Vec<String>,
    /// Shapes by name.
    pub(crate) tensors: BTreeMap<&'a str, Vec<usize>>,
    /// The other entries.
    pub(crate) others: Vec<NonTensor<'a>>,
}

/// An entry that is not a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NonTensor<'a> {
    /// The key, if it can be a tensor's name.
    pub(crate) name: Option<&'a str>,
    /// Module and name of the Python object, unless it is a plain value.
    pub(crate) object: Option<(&'a str, &'a str)>,
}

/// The tensors of one group whose names start with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) group: usize,
    pub(crate) prefix: String,
}

/// The names of one group that start with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) group: usize,
    pub(super) prefix: String,
}

impl Scope {
    pub(super) fn all_of(group: usize) -> Self {
        Scope {
            group,
            prefix: String::new(),
        }
    }
}

pub(super) fn starting_with<'g>(
    tensors: &'g BTreeMap<&str, Vec<usize>>,
    prefix: &'g str,
) -> impl Iterator<Item = &'g str> {
    tensors
        .range(prefix..)
        .map(|(name, _)| *name)
        .take_while(move |name| name.starts_with(prefix))
}

/// The key of the tensors of a group that have a prefix.
pub(super) fn place(group: &Group<'_>, prefix: &str) -> String {
    let path = group.paths.first().map_or(TOP, String::as_str);
    match (path, prefix.trim_end_matches('.')) {
        (path, "") => path.to_owned(),
        (TOP, prefix) => prefix.to_owned(),
        (path, prefix) => format!("{path}.{prefix}"),
    }
}
