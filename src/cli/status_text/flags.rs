//! Flags of the commands by the fields of requests that they set.

/// Fields of requests, without `spec.`, whose flag has another name than the field.
const FLAGS: &[(&str, &str)] = &[
    ("dataset.path", "DATASET"),
    ("dataset.name", "DATASET"),
    ("dataset.columns", "--column"),
    ("init", "--init"),
    ("init.kind", "--init"),
    ("init.path", "--init"),
    ("init.version", "--init"),
    ("init.key", "--init-key"),
    ("max_epochs", "--epochs"),
    ("optimizer.kind", "--optimizer"),
    ("optimizer.learning_rate", "--lr"),
    ("learning_rate", "--lr"),
    ("optimizer.beta1", "--beta1"),
    ("optimizer.beta2", "--beta2"),
    ("optimizer.epsilon", "--epsilon"),
    ("optimizer.weight_decay", "--weight-decay"),
    ("early_stopping.patience", "--patience"),
    ("early_stopping.min_delta", "--min-delta"),
    ("schedule.kind", "--schedule"),
    ("schedule.warmup_epochs", "--warmup-epochs"),
    ("loss.kind", "--loss"),
    ("augmentation.horizontal_flip", "--flip"),
    ("target.value", "--target-mae"),
    ("create_version", "--no-version"),
    ("training_id", "--id"),
    ("dataset_id", "--id"),
    ("labels", "--label"),
    ("columns", "--column"),
    ("model", "--version"),
    ("model_version", "--version"),
    ("interval_level", "--interval"),
    ("max_listed", "--list"),
    ("expected_version", "--expected"),
    ("directives", "DIRECTIVES"),
];

/// Fields whose flag has the name of the field.
const SAME_NAME: &[&str] = &[
    "trainable",
    "batch_size",
    "shards",
    "input_size",
    "head_bias",
    "seed",
    "max_duration",
    "feature_cache",
    "cache_budget_bytes",
    "precision",
    "promote",
    "recipe",
    "patience",
    "display_name",
    "age_pattern",
    "near_distance",
    "split",
    "detect_faces",
    "average_flip",
    "explain",
    "annotate",
    "validation_fraction",
    "test_fraction",
    "min_age",
    "max_age",
    "max_reject_share",
    "split_grouping",
];

/// Flag of a field; `--set FIELD` for a field of the spec without its own flag, and the field
/// itself for one that no flag sets.
pub(super) fn flag(field: &str) -> String {
    let (in_spec, path) = match field.strip_prefix("spec.") {
        Some(path) => (true, path),
        None => (false, field),
    };
    // `spec.dataset.min_age` and `dataset.min_age` of a check have the same flag.
    let in_dataset = path.strip_prefix("dataset.").unwrap_or(path);
    // `columns.age` and `labels[x]` belong to the flag of their list.
    let list = in_dataset.split(['.', '[']).next().unwrap_or_default();
    let renamed = |name: &str| FLAGS.iter().find(|(field, _)| *field == name);
    if let Some((_, flag)) = renamed(path).or_else(|| renamed(in_dataset)) {
        return (*flag).to_owned();
    }
    if SAME_NAME.contains(&in_dataset) {
        return format!("--{}", in_dataset.replace('_', "-"));
    }
    match list {
        "columns" => "--column".to_owned(),
        "labels" => "--label".to_owned(),
        _ if in_spec => format!("--set {path}"),
        _ => field.to_owned(),
    }
}

/// Replaces fields of the spec by their flags.
pub(crate) fn with_flags(text: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("spec.") {
        let is_word_start = !rest[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let field = &rest[start..];
        let end = field
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_')))
            .unwrap_or(field.len());
        let name = field[..end].trim_end_matches('.');
        replaced.push_str(&rest[..start]);
        match is_word_start {
            true => replaced.push_str(&format!("`{}`", flag(name))),
            false => replaced.push_str(name),
        }
        rest = &field[name.len()..];
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{args::spec_field::Field, program::Cli};

    #[test]
    fn every_flag_of_the_table_exists() {
        let command = Cli::command();
        let exists = |flag: &str| {
            fn search(command: &clap::Command, flag: &str) -> bool {
                let named = command
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(flag));
                named || command.get_subcommands().any(|below| search(below, flag))
            }
            search(&command, flag)
        };
        let renamed = FLAGS.iter().filter_map(|(_, flag)| flag.strip_prefix("--"));
        let same: Vec<String> = SAME_NAME
            .iter()
            .map(|name| name.replace('_', "-"))
            .collect();
        for flag in renamed.chain(same.iter().map(String::as_str)) {
            assert!(exists(flag), "--{flag}");
        }
        for (field, flag) in FLAGS.iter().filter(|(field, _)| field.contains('.')) {
            assert!(Field::parse(field).is_ok(), "{field} of {flag}");
        }
    }
}
