//! Resource names, from the short forms that people type.

/// `ID` or `trainings/ID` to `trainings/ID`.
pub(super) fn training(text: &str) -> String {
    let id = text.strip_prefix("trainings/").unwrap_or(text);
    format!("trainings/{id}")
}

/// `trainings/ID` to `ID`.
pub(super) fn training_id(name: &str) -> &str {
    name.strip_prefix("trainings/").unwrap_or(name)
}

/// A training and `best` or an epoch to the name of its checkpoint; a full name stays.
pub(super) fn checkpoint(text: &str, epoch: &str) -> String {
    if text.contains("/checkpoints/") {
        return text.to_owned();
    }
    format!("{}/checkpoints/{epoch}", training(text))
}

/// `age` or `models/age` to `models/age`.
pub(super) fn model(text: &str) -> String {
    let id = text.strip_prefix("models/").unwrap_or(text);
    format!("models/{id}")
}

/// A version number or alias to its name; a full name stays.
pub(super) fn version(model_text: &str, text: &str) -> String {
    if text.contains('/') {
        return text.to_owned();
    }
    format!("{}/versions/{text}", model(model_text))
}

/// `models/age/versions/3` to `3`.
pub(super) fn version_id(name: &str) -> &str {
    name.rsplit_once("/versions/")
        .map_or(name, |(_, version)| version)
}
