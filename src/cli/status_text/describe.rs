use tonic::{Code, Status};
use tonic_types::{ErrorInfo, FieldViolation, StatusExt as _};

use super::flags::{flag, with_flags};
use crate::cli::{error::retry_delay, output::text::duration_text};

/// Stable reason of an error of the server.
pub(crate) fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// True if the server refused the values of flags, as the parser of the arguments would.
pub(crate) fn is_wrong_usage(status: &Status) -> bool {
    let violations = status
        .get_details_bad_request()
        .map(|bad_request| bad_request.field_violations)
        .unwrap_or_default();
    status.code() == Code::InvalidArgument
        && reason(status).as_deref() == Some("INVALID_FIELDS")
        && violations.iter().any(|violation| {
            let flag = flag(&violation.field);
            flag.starts_with("--") || flag == "DIRECTIVES"
        })
}

/// The message, or all violations by flag, and the retry delay.
pub(crate) fn describe(status: &Status) -> String {
    if let Some(text) = status
        .get_details_error_info()
        .and_then(|info| with_commands(&info, status.message()))
    {
        return text;
    }
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
    if let Some(remedy) = credential_remedy(status) {
        text.push_str(&format!("\n  {remedy}"));
    }
    if let Some(delay) = retry_delay(status) {
        text.push_str(&format!("\n  try again in {}", duration_text(delay)));
    }
    text
}

/// An error whose remedy is a command or a flag.
fn with_commands(info: &ErrorInfo, message: &str) -> Option<String> {
    match info.reason.as_str() {
        "WEIGHTS_UNAVAILABLE" => weights_text(info),
        "NO_UPLOAD" => {
            let (_, named) = message.split_once('"')?;
            let (upload, _) = named.split_once('"')?;
            Some(format!(
                "no upload `{upload}`; `visage dataset uploads` lists them"
            ))
        }
        "TRAINING_LIVE" => {
            let state = message.strip_suffix("; cancel it before deleting it")?;
            let (name, _) = state.split_once(' ')?;
            let id = name.strip_prefix("trainings/")?;
            Some(format!(
                "{state}; cancel it with `visage trainings cancel {id}` before deleting it"
            ))
        }
        "NO_EVALUATION" => {
            let cause = message.strip_suffix("; evaluate it on a dataset instead")?;
            Some(format!(
                "{cause}; `visage evaluate DATASET` evaluates it on a dataset"
            ))
        }
        "ALREADY_EXISTS" => {
            let taken = message.strip_suffix("; choose another id")?;
            let name = taken.strip_suffix(" already exists")?;
            let delete = match name.split_once('/')? {
                ("trainings", id) => format!("visage trainings delete {id}"),
                ("datasets", id) => format!("visage dataset delete {id}"),
                _ => return None,
            };
            Some(format!(
                "{taken}; choose another with --id, or delete it with `{delete}`"
            ))
        }
        _ => None,
    }
}

/// The problem, then each remedy on a line of its own, the easiest first.
fn weights_text(info: &ErrorInfo) -> Option<String> {
    let (cause, place) = (info.metadata.get("cause")?, info.metadata.get("place")?);
    Some(format!(
        "the ImageNet weights are not on the server, and the Hugging Face hub is not available: {cause}\n  \
         `--recipe fast` or `--init starter` starts from the built-in face model instead\n  \
         or put torchvision's file resnet18-f37072fd.pth into {place}\n  \
         or let the server reach the hub, or a mirror that HF_ENDPOINT names"
    ))
}

/// The way to a credential that the server accepts.
fn credential_remedy(status: &Status) -> Option<String> {
    let info = status.get_details_error_info();
    let reason = info.as_ref().map_or("", |info| info.reason.as_str());
    match (status.code(), reason) {
        (Code::Unauthenticated, "CREDENTIAL_EXPIRED") => Some(
            "`visage token new` on the server creates a token; name its file with --token-file"
                .to_owned(),
        ),
        // An error over HTTP has no details.
        (Code::Unauthenticated, "CREDENTIAL_MISSING" | "") => Some(
            "name a token with --token-file or VISAGE_TOKEN_FILE, or a certificate with --cert and --key"
                .to_owned(),
        ),
        (Code::PermissionDenied, "ROLE_REQUIRED") => {
            let roles = info.as_ref().and_then(|info| info.metadata.get("role"))?;
            let role = roles.split(" or ").next()?;
            Some(format!(
                "`visage token new NAME --role {role}` on the server creates a token with it"
            ))
        }
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use tonic_types::ErrorDetails;

    use super::*;

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

    fn with_reason(code: Code, message: &str, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<String, String> = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let details = ErrorDetails::with_error_info(reason, "visage", metadata);
        Status::with_error_details(code, message, details)
    }

    #[test]
    fn unavailable_weights_are_one_line_for_the_problem_and_one_for_each_remedy() {
        let status = with_reason(
            Code::InvalidArgument,
            "spec.init: as the API says it",
            "WEIGHTS_UNAVAILABLE",
            &[("cause", "no response"), ("place", "/data/weights")],
        );
        let text = describe(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].ends_with("is not available: no response"),
            "{text}"
        );
        assert!(
            lines[1].contains("`--recipe fast` or `--init starter`"),
            "{text}"
        );
        assert!(
            lines[2].ends_with("resnet18-f37072fd.pth into /data/weights"),
            "{text}"
        );
        assert!(lines[3].contains("HF_ENDPOINT"), "{text}");
        // The value is the default, not one of a flag.
        assert!(!is_wrong_usage(&status));
    }

    #[test]
    fn remedies_are_commands() {
        let text = |code, message, reason| describe(&with_reason(code, message, reason, &[]));
        assert_eq!(
            text(
                Code::NotFound,
                "upload \"nope\" does not exist; it may have expired",
                "NO_UPLOAD"
            ),
            "no upload `nope`; `visage dataset uploads` lists them"
        );
        assert_eq!(
            text(
                Code::AlreadyExists,
                "datasets/a already exists; choose another id",
                "ALREADY_EXISTS"
            ),
            "datasets/a already exists; choose another with --id, or delete it with \
             `visage dataset delete a`"
        );
        assert_eq!(
            text(
                Code::NotFound,
                "v has no stored evaluation: no test images; evaluate it on a dataset instead",
                "NO_EVALUATION"
            ),
            "v has no stored evaluation: no test images; `visage evaluate DATASET` evaluates it \
             on a dataset"
        );
        let live = "trainings/a is queued; cancel it before deleting it";
        assert_eq!(
            text(Code::FailedPrecondition, live, "TRAINING_LIVE"),
            "trainings/a is queued; cancel it with `visage trainings cancel a` before deleting it"
        );
        let ending = "trainings/a is being cancelled; delete it when it has ended, in a moment";
        assert_eq!(
            text(Code::FailedPrecondition, ending, "TRAINING_LIVE"),
            ending
        );
    }

    #[test]
    fn only_values_of_flags_are_wrong_usage() {
        let of_field = |field: &str| {
            let mut details = ErrorDetails::with_error_info("INVALID_FIELDS", "visage", []);
            details.add_bad_request_violation(field, "must be from 1 to 10000, got 0");
            is_wrong_usage(&Status::with_error_details(
                Code::InvalidArgument,
                "refused",
                details,
            ))
        };
        assert!(of_field("spec.max_epochs"));
        assert!(of_field("split"));
        assert!(of_field("directives"));
        // A directory that does not exist, and a field without a flag.
        assert!(!of_field("spec.dataset.path"));
        assert!(!of_field("page_token"));
        assert!(!is_wrong_usage(&Status::invalid_argument("refused")));
    }

    #[test]
    fn missing_credentials_and_roles_name_the_remedy() {
        let text = |code, reason: &str| {
            let role = [("role".to_owned(), "trainer or admin".to_owned())];
            let details = ErrorDetails::with_error_info(reason, "visage", role);
            describe(&Status::with_error_details(code, "refused", details))
        };
        let missing = text(Code::Unauthenticated, "CREDENTIAL_MISSING");
        assert!(
            missing.starts_with("refused\n  name a token with --token-file"),
            "{missing}"
        );
        let role = text(Code::PermissionDenied, "ROLE_REQUIRED");
        assert!(
            role.contains("`visage token new NAME --role trainer`"),
            "{role}"
        );
        let expired = text(Code::Unauthenticated, "CREDENTIAL_EXPIRED");
        assert!(expired.contains("visage token new"), "{expired}");
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
}
