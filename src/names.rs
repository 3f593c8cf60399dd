//! Resource names of the API, such as `trainings/{id}` and `models/{model}/versions/{n}`.

use crate::proto::v1::TrainingState;

/// The model that trainings publish to unless they name another one.
pub(crate) const DEFAULT_MODEL: &str = "age";
/// The alias of the version that is served by default.
pub(crate) const LIVE: &str = "live";
/// The alias of the version that was live before.
pub(crate) const PREVIOUS: &str = "previous";

/// A checkpoint of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointRef {
    /// From 1.
    Epoch(u32),
    /// The best one so far.
    Best,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum VersionRef {
    /// From 1.
    Number(u64),
    Alias(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be of the form {form}, got {name:?}")]
pub(crate) struct Error {
    /// As given, shortened.
    pub name: String,
    pub form: &'static str,
}

/// Returns the id of `trainings/{id}`.
///
/// # Errors
/// A name of another form.
pub(crate) fn training_id(name: &str) -> Result<&str, Error> {
    let refuse = || Error {
        name: shorten(name),
        form: "trainings/{id}",
    };
    let id = name.strip_prefix("trainings/").ok_or_else(refuse)?;
    Some(id).filter(|id| is_id(id)).ok_or_else(refuse)
}

/// Returns the id of `datasets/{id}`.
///
/// # Errors
/// A name of another form.
pub(crate) fn dataset_id(name: &str) -> Result<&str, Error> {
    let id = name.strip_prefix("datasets/").filter(|id| is_id(id));
    id.ok_or_else(|| Error {
        name: shorten(name),
        form: "datasets/{id}",
    })
}

/// The rule of [`is_id`] and the text that breaks it, to follow the name of a field.
pub(crate) fn id_violation(text: &str) -> String {
    format!(
        "must be 1 to 63 characters of a-z, 0-9 and -, starting with a letter, got {:?}",
        shorten(text)
    )
}

/// Returns true for an id of a resource; see [`id_violation`] for the rule.
pub(crate) fn is_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=63).contains(&text.len())
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A model version by number or alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VersionName {
    pub model: String,
    pub version: VersionRef,
}

impl VersionName {
    pub(crate) fn alias(model: &str, alias: &str) -> Self {
        VersionName {
            model: model.to_owned(),
            version: VersionRef::Alias(alias.to_owned()),
        }
    }

    /// Parses `models/{model}/versions/{n or alias}`.
    ///
    /// # Errors
    /// A name of another form.
    pub(crate) fn parse(name: &str) -> Result<Self, Error> {
        let refuse = || Error {
            name: shorten(name),
            form: "models/{model}/versions/{n or alias}",
        };
        let (model, version) = name
            .strip_prefix("models/")
            .and_then(|rest| rest.split_once("/versions/"))
            .ok_or_else(refuse)?;
        let version = match version.parse::<u64>() {
            Ok(number) if number > 0 => VersionRef::Number(number),
            _ if is_id(version) => VersionRef::Alias(version.to_owned()),
            _ => return Err(refuse()),
        };
        if !is_id(model) {
            return Err(refuse());
        }
        Ok(VersionName {
            model: model.to_owned(),
            version,
        })
    }

    pub(crate) fn is_alias(&self, alias: &str) -> bool {
        match &self.version {
            VersionRef::Alias(found) => found == alias,
            VersionRef::Number(_) => false,
        }
    }
}

/// Returns the id of `models/{model}`; an empty name means the default model.
///
/// # Errors
/// A name of another form.
pub(crate) fn model_id<'a>(name: &'a str, default: &'a str) -> Result<&'a str, Error> {
    if name.is_empty() {
        return Ok(default);
    }
    let id = name.strip_prefix("models/").filter(|id| is_id(id));
    id.ok_or_else(|| Error {
        name: shorten(name),
        form: "models/{model}",
    })
}

/// Parses `trainings/{id}/checkpoints/{epoch or best}`.
///
/// # Errors
/// A name of another form.
pub(crate) fn checkpoint(name: &str) -> Result<(&str, CheckpointRef), Error> {
    let refuse = || Error {
        name: shorten(name),
        form: "trainings/{id}/checkpoints/{epoch or best}",
    };
    let (training, which) = name.split_once("/checkpoints/").ok_or_else(refuse)?;
    let id = training_id(training).map_err(|_| refuse())?;
    let which = match which {
        "best" => CheckpointRef::Best,
        epoch => CheckpointRef::Epoch(epoch.parse().map_err(|_| refuse())?),
    };
    Ok((id, which))
}

/// Returns the id at the end of a resource name that this program has written.
pub(crate) fn id_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

fn shorten(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Returns a state as a predicate, such as `is running`.
pub(crate) fn state_in_words(state: TrainingState) -> &'static str {
    match state {
        TrainingState::Unspecified => "is in an unknown state",
        TrainingState::Queued => "is queued",
        TrainingState::Preparing => "is preparing its dataset and weights",
        TrainingState::Running => "is running",
        TrainingState::Pausing => "is pausing",
        TrainingState::Paused => "is paused",
        TrainingState::Stopping => "is stopping early",
        TrainingState::Cancelling => "is being cancelled",
        TrainingState::Succeeded => "succeeded",
        TrainingState::Failed => "failed",
        TrainingState::Cancelled => "was cancelled",
    }
}

/// Returns the short name of a state, such as `RUNNING`.
pub(crate) fn of_state(state: TrainingState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("TRAINING_STATE_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_right_form_are_read() {
        assert_eq!(training_id("trainings/t-1").unwrap(), "t-1");
        assert_eq!(
            checkpoint("trainings/t-1/checkpoints/7").unwrap(),
            ("t-1", CheckpointRef::Epoch(7))
        );
        assert_eq!(
            checkpoint("trainings/t-1/checkpoints/best").unwrap(),
            ("t-1", CheckpointRef::Best)
        );
        assert_eq!(dataset_id("datasets/faces-2").unwrap(), "faces-2");
        assert_eq!(model_id("", "age").unwrap(), "age");
        assert_eq!(model_id("models/face", "age").unwrap(), "face");
        let seven = VersionName::parse("models/age/versions/7").unwrap();
        assert_eq!(seven.version, VersionRef::Number(7));
        assert!(
            VersionName::parse("models/age/versions/live")
                .unwrap()
                .is_alias("live")
        );
    }

    #[test]
    fn names_of_another_form_are_refused_with_the_form() {
        for name in [
            "",
            "trainings",
            "trainings/",
            "trainings/-",
            "trainings/A",
            "trainings/a/b",
            "x/a",
            "trainings/../etc",
        ] {
            assert!(training_id(name).is_err(), "{name}");
        }
        for name in ["", "faces", "datasets/", "datasets/a/b", "datasets/.."] {
            assert!(dataset_id(name).is_err(), "{name}");
        }
        for name in [
            "models/age",
            "models/age/versions/",
            "models/age/versions/0",
            "models/age/versions/-1",
            "models//versions/1",
        ] {
            assert!(VersionName::parse(name).is_err(), "{name}");
        }
        let error = checkpoint("trainings/a/checkpoints/last").unwrap_err();
        assert_eq!(
            error.to_string(),
            "must be of the form trainings/{id}/checkpoints/{epoch or best}, got \"trainings/a/checkpoints/last\""
        );
    }
}
