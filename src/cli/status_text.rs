//! Statuses of the server as error messages: settings by the flags of the commands, remedies as
//! commands.

use tonic::{Code, Status};
use tonic_types::{FieldViolation, StatusExt as _};

use crate::cli::{error::retry_delay, output::text::duration_text};

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
];

/// Fields whose flag has the name of the field.
const SAME_NAME: &[&str] = &[
    "trainable",
    "batch_size",
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

/// The message, or all violations by flag, and the retry delay.
pub(crate) fn describe(status: &Status) -> String {
    let violations = status
        .get_details_bad_request()
        .map(|bad_request| bad_request.field_violations)
        .unwrap_or_default();
    let mut text = match violations.as_slice() {
        [] => message(status),
        [first, ..] => {
            let list: Vec<String> = violations.iter().map(violation_text).collect();
            // The message of several violations starts with the first of them.
            let repeats = status
                .message()
                .starts_with(&format!("{}: {}", first.field, first.description));
            match list.as_slice() {
                [only] if repeats => only.clone(),
                several if repeats => {
                    let count = several.len();
                    format!("{count} settings are wrong:\n  {}", several.join("\n  "))
                }
                all => format!("{}\n  {}", message(status), all.join("\n  ")),
            }
        }
    };
    if let Some(delay) = retry_delay(status) {
        text.push_str(&format!("\n  try again in {}", duration_text(delay)));
    }
    text
}

fn message(status: &Status) -> String {
    match status.message() {
        "" => format!("the server returned {:?}", status.code()),
        message if status.code() == Code::NotFound => {
            missing(message).unwrap_or_else(|| message.to_owned())
        }
        message => message.to_owned(),
    }
}

/// A resource that does not exist, by its short name, with the command that lists all.
fn missing(message: &str) -> Option<String> {
    let named = message.strip_suffix(" does not exist")?;
    let (what, name) = named.rsplit_once(' ')?;
    let (short, command) = match what {
        "training" => (name.strip_prefix("trainings/")?, "trainings list"),
        "dataset" => (name.strip_prefix("datasets/")?, "dataset list"),
        "model version" | "model" => (name, "models list"),
        "checkpoint" => {
            let (training, _) = name.split_once("/checkpoints/")?;
            let id = training.strip_prefix("trainings/")?;
            return Some(format!(
                "no {what} `{name}`; `visage trainings checkpoints {id}` shows them"
            ));
        }
        _ => return None,
    };
    Some(format!(
        "no {what} `{short}`; `visage {command}` shows them"
    ))
}

/// One violation on one line, with the flag instead of the field.
fn violation_text(violation: &FieldViolation) -> String {
    let description = with_flags(&violation.description);
    let flag = flag(&violation.field);
    // The same name in front of the description would repeat the flag.
    let last = violation.field.rsplit('.').next().unwrap_or_default();
    let description = description
        .strip_prefix(&format!("{last}: "))
        .unwrap_or(&description);
    let is_predicate = ["must ", "is ", "has "]
        .iter()
        .any(|verb| description.starts_with(verb));
    match is_predicate {
        true => format!("`{flag}` {description}"),
        false => format!("`{flag}`: {description}"),
    }
}

/// Flag of a field; `--set FIELD` for a field of the spec without its own flag, and the field
/// itself for one that no flag sets.
fn flag(field: &str) -> String {
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
    use std::time::Duration;

    use clap::CommandFactory as _;
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::cli::{args::spec_field::Field, program::Cli};

    fn refusal(message: &str, violations: &[(&str, &str)]) -> Status {
        let mut details = ErrorDetails::new();
        for (field, description) in violations {
            details.add_bad_request_violation(*field, *description);
        }
        Status::with_error_details(Code::InvalidArgument, message, details)
    }

    #[test]
    fn violations_are_listed_once_with_their_flags() {
        let one = refusal(
            "spec.max_epochs: must be from 1 to 10000, got 0",
            &[("spec.max_epochs", "must be from 1 to 10000, got 0")],
        );
        assert_eq!(describe(&one), "`--epochs` must be from 1 to 10000, got 0");
        let several = refusal(
            "spec.max_epochs: must be from 1 to 10000, got 0 (and 2 more violations)",
            &[
                ("spec.max_epochs", "must be from 1 to 10000, got 0"),
                ("spec.trainable", "trainable: \"layer5\" is unknown"),
                (
                    "spec.optimizer.groups",
                    "must be empty unless spec.init.kind is PATH.",
                ),
            ],
        );
        assert_eq!(
            describe(&several),
            "3 settings are wrong:\n  \
             `--epochs` must be from 1 to 10000, got 0\n  \
             `--trainable`: \"layer5\" is unknown\n  \
             `--set optimizer.groups` must be empty unless `--init` is PATH."
        );
    }

    #[test]
    fn another_message_and_the_retry_delay_are_kept() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("images[3]", "is not an image");
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::InvalidArgument, "image 3 is bad", details);
        assert_eq!(
            describe(&status),
            "image 3 is bad\n  `images[3]` is not an image\n  try again in 2s"
        );
    }

    #[test]
    fn a_missing_resource_names_the_command_that_lists_all() {
        let text = |message: &str| describe(&Status::not_found(message));
        assert_eq!(
            text("training trainings/nope does not exist"),
            "no training `nope`; `visage trainings list` shows them"
        );
        assert_eq!(
            text("model version models/age/versions/9 does not exist"),
            "no model version `models/age/versions/9`; `visage models list` shows them"
        );
        assert_eq!(
            text("the sample does not exist"),
            "the sample does not exist"
        );
    }

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
