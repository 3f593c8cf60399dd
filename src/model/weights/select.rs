//! Finds the network within a file: the dictionary of tensors, and the prefix that all of its names share.
//!
//! Training scripts nest a state dict in dictionaries, beside other state dicts, and wrappers put a word before every name
//! (`module.` of `DataParallel`, `_orig_mod.` of `torch.compile`). Exactly one place in the file may fit the network;
//! otherwise the error lists the places, and the key of the request names one.

use std::collections::{BTreeMap, BTreeSet};

use super::FormatError;
use super::error::{quoted, quoted_object};
use super::shapes::{COUNTER_SUFFIX, HEAD_PREFIX, resnet18_shapes};

/// The top level of a file, in keys and messages.
pub(super) const TOP: &str = ".";
/// Keys under which a state dict is found that is read without knowing its network, in the order in which they are tried.
const NESTED_KEYS: [&str; 2] = ["state_dict", "model"];
/// Every network has one tensor whose name ends so, directly behind the prefix.
const FIRST: &str = "conv1.weight";
/// No name of the network has more parts between its dots.
const MOST_PARTS: usize = 5;
/// Places and prefixes listed in an error before the rest is only counted.
const LISTED: usize = 8;

/// The tensors to take from a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A bare state dict of any network, or one under `state_dict` or `model`.
    Whole,
    /// A ResNet18, wherever it lies.
    ResNet18 {
        /// The place to take it from, where there are several.
        key: Option<&'a str>,
    },
}

/// A dictionary with tensors in it.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    /// The keys that lead to it, joined by dots, for each way that does; [`TOP`] for the top level.
    pub(super) paths: Vec<String>,
    /// Shapes by name.
    pub(super) tensors: BTreeMap<&'a str, Vec<usize>>,
    /// The other entries.
    pub(super) others: Vec<Other<'a>>,
}

/// An entry that is not a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Other<'a> {
    /// The key, where it can be a tensor's name.
    pub(super) name: Option<&'a str>,
    /// Module and name of the Python object, unless it is a plain value.
    pub(super) object: Option<(&'a str, &'a str)>,
}

/// The tensors of one group whose names begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) group: usize,
    pub(super) prefix: String,
}

/// Chooses among the groups of a file, which has at least one.
pub(super) fn choose(groups: &[Group<'_>], wanted: Wanted<'_>) -> Result<Choice, FormatError> {
    match wanted {
        Wanted::Whole => whole(groups),
        Wanted::ResNet18 { key } => resnet18(groups, key),
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
            "it holds no tensors, neither directly nor under state_dict or model",
        ));
    };
    if let Some(other) = groups[group].others.first() {
        return Err(match other {
            Other {
                object: Some((module, name)),
                ..
            } => FormatError::ForbiddenGlobal {
                name: quoted_object(module, name),
            },
            Other {
                name: Some(name), ..
            } => FormatError::malformed(format!(
                "entry {} of its state dict is not a tensor",
                quoted(name)
            )),
            Other { name: None, .. } => {
                FormatError::malformed("a key of its state dict is not a string")
            }
        });
    }
    Ok(Choice {
        group,
        prefix: String::new(),
    })
}

/// The names of one group that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    group: usize,
    prefix: String,
}

impl Scope {
    fn all_of(group: usize) -> Self {
        Scope {
            group,
            prefix: String::new(),
        }
    }
}

fn resnet18(groups: &[Group<'_>], key: Option<&str>) -> Result<Choice, FormatError> {
    let network = resnet18_shapes(1);
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
                    way_out: format!(
                        "set spec.init.key to {} to take what has that prefix and leave out the rest",
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

/// The keys of places, or of all groups without any place.
fn listed_places(groups: &[Group<'_>], places: &[Choice]) -> String {
    if places.is_empty() {
        let paths = groups.iter().filter_map(|group| group.paths.first());
        return listed(paths.map(|path| quoted(path)).collect());
    }
    let keys = places
        .iter()
        .map(|choice| place(&groups[choice.group], &choice.prefix));
    listed(keys.map(|key| quoted(&key)).collect())
}

/// Where a key says to look; nowhere for one that names nothing.
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

/// The prefixes behind which a network may begin.
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

fn starting_with<'g>(
    tensors: &'g BTreeMap<&str, Vec<usize>>,
    prefix: &'g str,
) -> impl Iterator<Item = &'g str> {
    tensors
        .range(prefix..)
        .map(|(name, _)| *name)
        .take_while(move |name| name.starts_with(prefix))
}

/// True if the network lies behind the prefix; its head is not compared, which may be another one.
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

/// The place that is most like the network, for an error that lists the differences.
fn nearest(
    groups: &[Group<'_>],
    scopes: &[Scope],
    network: &[(String, Vec<usize>)],
) -> Result<Choice, FormatError> {
    let names: BTreeSet<&str> = network.iter().map(|(name, _)| name.as_str()).collect();
    let mut best = (0, 0, None);
    for scope in scopes {
        let tensors = &groups[scope.group].tensors;
        let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
        for name in starting_with(tensors, &scope.prefix) {
            if let Some(prefix) = prefix_of(name, &names) {
                *tally.entry(prefix).or_default() += 1;
            }
        }
        // Of prefixes with as many names the first, which is the shortest.
        let most = tally.iter().rev().max_by_key(|(_, count)| **count);
        let (prefix, count) = most.map_or(("", 0), |(prefix, count)| (*prefix, *count));
        if (count, tensors.len()) > (best.0, best.1) || best.2.is_none() {
            best = (count, tensors.len(), Some((scope, prefix)));
        }
    }
    let (count, _, Some((scope, prefix))) = best else {
        return Err(FormatError::malformed("it holds no tensors"));
    };
    let tensors = &groups[scope.group].tensors;
    // Names of the network by the prefix that they have here.
    let placed = starting_with(tensors, &scope.prefix).filter_map(|name| {
        let prefix = prefix_of(name, &names)?;
        Some((&name[prefix.len()..], prefix))
    });
    let (mut here, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for (name, at) in placed {
        if at == prefix {
            &mut here
        } else {
            &mut elsewhere
        }
        .insert(name);
    }
    let is_needed =
        |name: &&&str| !name.starts_with(HEAD_PREFIX) && !name.ends_with(COUNTER_SUFFIX);
    let is_mixed = elsewhere.difference(&here).any(|name| is_needed(&name));
    if is_mixed && here.union(&elsewhere).count() * 2 > names.len() {
        return Err(FormatError::MixedPrefixes {
            found: listed_prefixes(tensors, &scope.prefix, prefix, network),
            way_out: "save the state dict of one network, whose names all have the same prefix"
                .to_owned(),
        });
    }
    if count == 0
        && let Some(error) = instead_of_tensors(groups.iter().flat_map(|group| &group.others))
    {
        return Err(error);
    }
    let is_most_of_it = count * 2 > names.len();
    Ok(Choice {
        group: scope.group,
        prefix: if is_most_of_it { prefix } else { &scope.prefix }.to_owned(),
    })
}

/// The error that a file has Python objects in place of a network's tensors; `None` without any.
pub(super) fn instead_of_tensors<'a>(
    entries: impl Iterator<Item = &'a Other<'a>>,
) -> Option<FormatError> {
    let objects = entries.filter_map(|entry| {
        let (module, name) = entry.object?;
        let is_at = entry.name.map_or("an entry".to_owned(), quoted);
        Some(format!("{is_at} is {}", quoted_object(module, name)))
    });
    let objects: Vec<String> = objects.take(LISTED).collect();
    (!objects.is_empty()).then(|| FormatError::Objects {
        objects: objects.join(", "),
    })
}

/// The prefix in front of the longest name of the network that a name ends with.
fn prefix_of<'n>(name: &'n str, names: &BTreeSet<&str>) -> Option<&'n str> {
    let dots = name.rmatch_indices('.').map(|(at, _)| at + 1);
    let starts: Vec<usize> = dots.take(MOST_PARTS).collect();
    let all = (starts.len() < MOST_PARTS).then_some(0);
    let longest_first = all.into_iter().chain(starts.into_iter().rev());
    longest_first
        .map(|start| name.split_at(start))
        .find(|(_, rest)| names.contains(rest))
        .map(|(prefix, _)| prefix)
}

/// The prefixes of names, with how many names have each.
fn listed_prefixes(
    tensors: &BTreeMap<&str, Vec<usize>>,
    within: &str,
    main: &str,
    network: &[(String, Vec<usize>)],
) -> String {
    let names: BTreeSet<&str> = network.iter().map(|(name, _)| name.as_str()).collect();
    let mut found: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for name in starting_with(tensors, within) {
        let prefix = if name.starts_with(main) && !main.is_empty() {
            main
        } else if let Some(prefix) = prefix_of(name, &names) {
            prefix
        } else {
            let rest = &name[within.len()..];
            let first = rest.find('.').map_or(0, |dot| dot + 1);
            &name[..within.len() + first]
        };
        found.entry(prefix).or_insert((0, name)).0 += 1;
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let describe = |(prefix, (count, example)): (&str, (usize, &str))| {
        let prefix = match prefix {
            "" => "no prefix".to_owned(),
            _ => quoted(prefix),
        };
        let names = if count == 1 { "name" } else { "names, such as" };
        format!("{prefix} ({count} {names} {})", quoted(example))
    };
    listed(found.into_iter().map(describe).collect())
}

/// How a key names what has a prefix in a group.
fn place(group: &Group<'_>, prefix: &str) -> String {
    let path = group.paths.first().map_or(TOP, String::as_str);
    match (path, prefix.trim_end_matches('.')) {
        (path, "") => path.to_owned(),
        (TOP, prefix) => prefix.to_owned(),
        (path, prefix) => format!("{path}.{prefix}"),
    }
}

fn listed(mut names: Vec<String>) -> String {
    let rest = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match rest {
        0 => names.join(", "),
        _ => format!("{} and {rest} more", names.join(", ")),
    }
}
