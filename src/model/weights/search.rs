//! Searches the dictionaries of a pickle for tensors, breadth first.
//!
//! A file can nest a dictionary in itself, or in thousands of others, so depth, work and results
//! are limited.

use std::collections::BTreeMap;

use super::{
    pickle::{Id, Value, Values},
    select::{Group, NonTensor, TOP},
};

/// Dictionaries within dictionaries that are searched for tensors.
const MAX_DEPTH: usize = 5;
/// Entries that are searched for tensors; those of a dictionary nested in many others count each
/// time.
const MAX_SEARCHED: usize = 1_000_000;
/// Dictionaries with tensors in one file.
const MAX_GROUPS: usize = 1_000;
/// Paths to the same dictionary that are kept.
const MAX_PATHS: usize = 8;
/// Longest name of a tensor and longest key that leads to one, in bytes; torchvision's names have
/// at most 40.
const MAX_NAME: usize = 1_024;
/// Other entries of a group that are kept for an error.
const MAX_OTHERS: usize = 100;

/// The dictionaries with tensors.
#[derive(Debug, Default)]
pub(super) struct Search<'v> {
    pub(super) groups: Vec<Group<'v>>,
    /// The entries of each group.
    pub(super) entries: Vec<&'v [(Id, Id)]>,
}

impl<'v> Search<'v> {
    /// Searches everything below a value.
    pub(super) fn from(values: &'v Values, root: Id) -> Self {
        let mut search = Search::default();
        // The group of each dictionary that has tensors.
        let mut known: BTreeMap<Id, Option<usize>> = BTreeMap::new();
        let mut nodes = vec![Node {
            id: root,
            from: None,
            depth: 0,
        }];
        let mut next = 0;
        let mut left = MAX_SEARCHED;
        while let Some(Node { id, depth, .. }) = nodes.get(next) {
            let (id, depth, items) = (*id, *depth, values.items(*id).unwrap_or_default());
            let Some(rest) = left.checked_sub(items.len() + 1) else {
                break;
            };
            left = rest;
            let index = *known
                .entry(id)
                .or_insert_with(|| search.keep(group(values, items), items));
            if let Some(index) = index
                && search.groups[index].paths.len() < MAX_PATHS
            {
                search.groups[index].paths.push(path(values, &nodes, next));
            }
            if depth < MAX_DEPTH {
                let inner = items.iter().filter(|(key, value)| {
                    name(values, *key).is_some()
                        && values.items(*value).is_some_and(|items| !items.is_empty())
                });
                nodes.extend(inner.map(|(key, value)| Node {
                    id: *value,
                    from: Some((next, *key)),
                    depth: depth + 1,
                }));
            }
            next += 1;
        }
        search
    }

    fn keep(&mut self, group: Group<'v>, items: &'v [(Id, Id)]) -> Option<usize> {
        let index = self.groups.len();
        if group.tensors.is_empty() || index >= MAX_GROUPS {
            return None;
        }
        self.groups.push(group);
        self.entries.push(items);
        Some(index)
    }
}

/// A dictionary that the search reached.
struct Node {
    id: Id,
    /// The node and the key that lead to it; `None` for the top level.
    from: Option<(usize, Id)>,
    depth: usize,
}

/// The keys that lead to a node, joined by dots.
fn path(values: &Values, nodes: &[Node], mut node: usize) -> String {
    let mut keys = Vec::new();
    while let Some((parent, key)) = nodes[node].from {
        keys.push(name(values, key).unwrap_or_default());
        node = parent;
    }
    if keys.is_empty() {
        return TOP.to_owned();
    }
    keys.reverse();
    keys.join(".")
}

fn group<'v>(values: &'v Values, items: &[(Id, Id)]) -> Group<'v> {
    let mut group = Group::default();
    for (key, value) in items {
        if let Some(name) = name(values, *key)
            && let Value::Tensor(view) = values.get(*value)
        {
            // Without a readable shape it fits nothing, and is an error if selected.
            let shape = values.dimensions(view).map(|(shape, _)| shape);
            group.tensors.insert(name, shape.unwrap_or_default());
        } else if group.others.len() < MAX_OTHERS {
            group.others.push(other(values, *key, *value));
        }
    }
    group
}

/// An entry that is not a tensor.
pub(super) fn other(values: &Values, key: Id, value: Id) -> NonTensor<'_> {
    NonTensor {
        name: name(values, key),
        object: values.python_name(value),
    }
}

/// A key that can be a tensor's name or lead to tensors.
pub(super) fn name(values: &Values, key: Id) -> Option<&str> {
    values.text(key).ok().filter(|name| name.len() <= MAX_NAME)
}
