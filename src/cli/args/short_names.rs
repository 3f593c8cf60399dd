//! Full resource names from the short forms that users type, and back.

/// `ID` or `trainings/ID` to `trainings/ID`.
pub(crate) fn training(text: &str) -> String {
    format!("trainings/{}", training_id(text))
}

/// `trainings/ID` to `ID`.
pub(crate) fn training_id(name: &str) -> &str {
    name.strip_prefix("trainings/").unwrap_or(name)
}

/// `ID` or `datasets/ID` to `datasets/ID`.
pub(crate) fn dataset(text: &str) -> String {
    format!("datasets/{}", dataset_id(text))
}

/// `datasets/ID` to `ID`.
pub(crate) fn dataset_id(name: &str) -> &str {
    name.strip_prefix("datasets/").unwrap_or(name)
}

/// The checkpoint of a training and an epoch or `best`; a full name is kept.
pub(crate) fn checkpoint(text: &str, epoch: &str) -> String {
    if text.contains("/checkpoints/") {
        return text.to_owned();
    }
    format!("{}/checkpoints/{epoch}", training(text))
}

/// `age` or `models/age` to `models/age`.
pub(crate) fn model(text: &str) -> String {
    let id = text.strip_prefix("models/").unwrap_or(text);
    format!("models/{id}")
}

/// The version of a model and a number or alias; a full name is kept.
pub(crate) fn version(model_text: &str, text: &str) -> String {
    if text.contains('/') {
        return text.to_owned();
    }
    format!("{}/versions/{text}", model(model_text))
}

/// `models/age/versions/3` to `models/age`.
pub(crate) fn model_of(name: &str) -> &str {
    name.rsplit_once("/versions/")
        .map_or(name, |(model, _)| model)
}

/// `models/age/versions/3` to `3`.
pub(crate) fn version_id(name: &str) -> &str {
    name.rsplit_once("/versions/")
        .map_or(name, |(_, version)| version)
}
