//! Suggestions for a field name that does not exist.

use prost_reflect::MessageDescriptor;

use crate::{
    cli::{args::spec_field::field::inner_message, output::json},
    config::edit_distance,
};

const MAX_SUGGESTIONS: usize = 3;
const LIST_ALL: &str = "`visage train --fields` lists all";

/// The fields with the most similar names, in words, and the command that lists all.
pub(super) fn suggest(wrong: &str) -> String {
    let mut paths = all_paths();
    let last_of = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let wrong_last = last_of(wrong);
    let distance = |path: &String| {
        let last = last_of(path);
        if last.starts_with(&wrong_last) || initials(&last) == wrong_last {
            return 0;
        }
        edit_distance(wrong, path).min(edit_distance(&wrong_last, &last))
    };
    paths.sort_by_key(distance);
    let best = paths.first().map(distance).unwrap_or_default();
    if best > wrong_last.chars().count() / 2 {
        return LIST_ALL.to_owned();
    }
    let similar: Vec<String> = paths
        .iter()
        .take(MAX_SUGGESTIONS)
        .filter(|path| distance(path) <= best + 1)
        .map(|path| format!("`{path}`"))
        .collect();
    format!("did you mean {}? {LIST_ALL}", similar.join(" or "))
}

/// `lr` of `learning_rate`.
fn initials(name: &str) -> String {
    name.split('_')
        .filter_map(|word| word.chars().next())
        .collect()
}

/// The names of all fields that hold a value, in the order of the API.
pub(super) fn all_paths() -> Vec<String> {
    let mut paths = Vec::new();
    collect_paths(&json::descriptor("TrainingSpec"), "", &mut paths);
    paths
}

/// The names of all fields that hold a value.
fn collect_paths(message: &MessageDescriptor, prefix: &str, paths: &mut Vec<String>) {
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        match inner_message(&field) {
            Some(inner) => collect_paths(&inner, &format!("{path}."), paths),
            None => paths.push(path),
        }
    }
}
