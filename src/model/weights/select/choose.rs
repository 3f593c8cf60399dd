//! Chooses the place of the network.

use std::collections::BTreeMap;

use super::{
    explain::{listed_places, listed_prefixes, nearest},
    groups::{Choice, Group, NonTensor, Scope, Selection, TOP, place, starting_with},
};
use crate::model::{
    layout::{COUNTER_SUFFIX, HEAD_PREFIX, layout},
    weights::{
        FormatError,
        text::{quoted, quoted_object},
    },
};

/// Keys of state dicts that are read without knowledge of their network, in the order in which they
/// are tried.
const NESTED_KEYS: [&str; 2] = ["state_dict", "model"];
/// Every network has one tensor of this name, directly behind the prefix.
const FIRST: &str = "conv1.weight";

/// Chooses among the groups of a file, which has at least one.
pub(crate) fn choose(
    groups: &[Group<'_>],
    selection: Selection<'_>,
) -> Result<Choice, FormatError> {
    match selection {
        Selection::Whole => whole(groups),
        Selection::ResNet18 { key } => resnet18(groups, key),
    }
}

fn whole(groups: &[Group<'_>]) -> Result<Choice, FormatError> {
    let at = |path: &str| {
        let is_there = |group: &Group<'_>| group.paths.iter().any(|found| found == path);
        groups.iter().position(is_there)
    };
    let found = std::iter::once(TOP).chain(NESTED_KEYS).find_map(at);
    let Some(group) = found else {
        return Err(FormatError::malformed(
            "it has no tensors, neither directly nor under state_dict or model",
        ));
    };
    if let Some(other) = groups[group].others.first() {
        return Err(match other {
            NonTensor {
                object: Some((module, name)),
                ..
            } => FormatError::ForbiddenGlobal {
                name: quoted_object(module, name),
            },
            NonTensor {
                name: Some(name), ..
            } => FormatError::malformed(format!(
                "entry {} of its state dict is not a tensor",
                quoted(name)
            )),
            NonTensor { name: None, .. } => {
                FormatError::malformed("a key of its state dict is not a string")
            }
        });
    }
    Ok(Choice {
        group,
        prefix: String::new(),
    })
}

fn resnet18(groups: &[Group<'_>], key: Option<&str>) -> Result<Choice, FormatError> {
    let network = layout(1);
    let everywhere: Vec<Scope> = (0..groups.len()).map(Scope::all_of).collect();
    let scopes = match key {
        None => everywhere,
        Some(key) => {
            let at_key = scopes_at(groups, key);
            if at_key.is_empty() {
                return Err(FormatError::UnknownKey {
                    key: quoted(key),
                    places: listed_places(groups, &fitting(groups, &everywhere, &network)),
                });
            }
            at_key
        }
    };
    let fitting = fitting(groups, &scopes, &network);
    match fitting.as_slice() {
        [] => nearest(groups, &scopes, &network),
        [only] => {
            let holds_it = |scope: &&Scope| {
                scope.group == only.group && only.prefix.starts_with(&scope.prefix)
            };
            let scope = scopes.iter().find(holds_it);
            let within = scope.map_or("", |scope| scope.prefix.as_str());
            let tensors = &groups[only.group].tensors;
            if starting_with(tensors, within).any(|name| !name.starts_with(&only.prefix)) {
                let place = place(&groups[only.group], &only.prefix);
                return Err(FormatError::MixedPrefixes {
                    found: listed_prefixes(tensors, within, &only.prefix, &network),
                    remedy: format!(
                        "set spec.init.key to {} to read the tensors with that prefix and ignore the others",
                        quoted(&place)
                    ),
                });
            }
            Ok(only.clone())
        }
        several => Err(FormatError::SeveralNetworks {
            places: listed_places(groups, several),
        }),
    }
}

/// The places within the scopes that fit the network.
fn fitting(
    groups: &[Group<'_>],
    scopes: &[Scope],
    network: &[(String, Vec<usize>)],
) -> Vec<Choice> {
    let mut found = Vec::new();
    for scope in scopes {
        let tensors = &groups[scope.group].tensors;
        for prefix in prefixes(tensors, &scope.prefix) {
            let choice = Choice {
                group: scope.group,
                prefix: prefix.to_owned(),
            };
            if fits(tensors, prefix, network) && !found.contains(&choice) {
                found.push(choice);
            }
        }
    }
    found
}

/// The places that a key names; empty for an unknown key.
fn scopes_at(groups: &[Group<'_>], key: &str) -> Vec<Scope> {
    let key = if key == TOP {
        key
    } else {
        key.trim_end_matches('.')
    };
    let is_at_key = |group: &usize| groups[*group].paths.iter().any(|path| path == key);
    let exact: Vec<Scope> = (0..groups.len())
        .filter(is_at_key)
        .map(Scope::all_of)
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    // The rest of the key behind the path of a group, or all of it, is a prefix of names.
    let mut found = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let behind_paths = group.paths.iter().filter_map(|path| {
            let rest = key.strip_prefix(path.as_str())?;
            rest.strip_prefix('.')
        });
        for rest in behind_paths.chain([key]) {
            let scope = Scope {
                group: index,
                prefix: format!("{rest}."),
            };
            let is_there = starting_with(&group.tensors, &scope.prefix)
                .next()
                .is_some();
            if is_there && !found.contains(&scope) {
                found.push(scope);
            }
        }
    }
    found
}

/// The prefixes behind which a network may start.
fn prefixes<'g>(
    tensors: &'g BTreeMap<&str, Vec<usize>>,
    within: &'g str,
) -> impl Iterator<Item = &'g str> {
    starting_with(tensors, within).filter_map(move |name| {
        let prefix = name.strip_suffix(FIRST)?;
        let is_boundary = prefix.is_empty() || prefix.ends_with('.');
        (is_boundary && prefix.len() >= within.len()).then_some(prefix)
    })
}

/// Returns whether the names with the prefix are the network's. The head is not compared, because
/// it may be another one.
fn fits(
    tensors: &BTreeMap<&str, Vec<usize>>,
    prefix: &str,
    network: &[(String, Vec<usize>)],
) -> bool {
    let needed = network
        .iter()
        .filter(|(name, _)| !name.starts_with(HEAD_PREFIX) && !name.ends_with(COUNTER_SUFFIX));
    let mut full = prefix.to_owned();
    needed.into_iter().all(|(name, shape)| {
        full.truncate(prefix.len());
        full.push_str(name);
        tensors.get(full.as_str()) == Some(shape)
    })
}
