//! Errors that describe why no place in a file fits the network.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::{Choice, Group, NonTensor, Scope, place, starting_with};
use crate::model::{
    layout::{COUNTER_SUFFIX, HEAD_PREFIX},
    weights::{
        FormatError,
        text::{quoted, quoted_object},
    },
};

/// No name of the network has more parts between its dots.
const MOST_PARTS: usize = 5;
/// Places and prefixes listed in an error before the rest is only counted.
const LISTED: usize = 8;

/// The keys of the places, or of all groups if there are no places.
pub(super) fn listed_places(groups: &[Group<'_>], places: &[Choice]) -> String {
    if places.is_empty() {
        let paths = groups.iter().filter_map(|group| group.paths.first());
        return listed(paths.map(|path| quoted(path)).collect());
    }
    let keys = places
        .iter()
        .map(|choice| place(&groups[choice.group], &choice.prefix));
    listed(keys.map(|key| quoted(&key)).collect())
}

/// The place with the most names of the network, so that the caller's error lists the differences.
pub(super) fn nearest(
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
        // Among equals the first, which is the shortest.
        let most = tally.iter().rev().max_by_key(|(_, count)| **count);
        let (prefix, count) = most.map_or(("", 0), |(prefix, count)| (*prefix, *count));
        if (count, tensors.len()) > (best.0, best.1) || best.2.is_none() {
            best = (count, tensors.len(), Some((scope, prefix)));
        }
    }
    let (count, _, Some((scope, prefix))) = best else {
        return Err(FormatError::malformed("it has no tensors"));
    };
    let tensors = &groups[scope.group].tensors;
    // Names of the network with the prefix that they have here.
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
            remedy: "save the state dict of one network, whose names all have the same prefix"
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

/// The error that a file has Python objects in place of tensors; `None` if it has none.
pub(crate) fn instead_of_tensors<'a>(
    entries: impl Iterator<Item = &'a NonTensor<'a>>,
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

/// The prefixes, each with its number of names and an example.
pub(super) fn listed_prefixes(
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

fn listed(mut names: Vec<String>) -> String {
    let rest = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match rest {
        0 => names.join(", "),
        _ => format!("{} and {rest} more", names.join(", ")),
    }
}
