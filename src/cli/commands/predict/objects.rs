//! Results as JSON objects: one per image, or one per face.

use serde_json::{Value, json};

use crate::{
    cli::{
        commands::predict::{requests::PredictedImage, targets::Targets},
        output::json,
    },
    proto::v1::{FacePrediction, Interval},
};

/// The objects of an image; `label` names its file.
pub(super) fn of_image(
    label: &str,
    index: usize,
    predicted: &PredictedImage,
    has_faces: bool,
    targets: &Targets,
) -> Vec<Value> {
    let mut common = common(label, index, predicted, targets);
    let prediction = &predicted.prediction;
    if !has_faces {
        common["age"] = prediction.age.into();
        common["interval"] = interval_value(prediction.interval.as_ref());
        if let Some(explanation) = &prediction.explanation {
            common["explanation"] = json::value("Explanation", explanation);
        }
        if let Some(target) = targets.explained.get(index) {
            common["explained"] = target.display().to_string().into();
        }
        return vec![common];
    }
    let faces = &prediction.faces;
    common["faces"] = faces.len().into();
    if faces.is_empty() {
        // Null, so that a script that reads ages does not find one.
        common["age"] = Value::Null;
        return vec![common];
    }
    (1..)
        .zip(faces)
        .map(|(number, face)| {
            let mut object = common.clone();
            describe_face(&mut object, number, face);
            if let Some(target) = targets.explained_face(index, number) {
                object["explained"] = target.display().to_string().into();
            }
            object
        })
        .collect()
}

/// The object of a file that cannot be used.
pub(super) fn of_failure(label: &str, reason: &str) -> Value {
    json!({ "file": label, "error": reason })
}

/// Fields that an image and its faces have in common.
fn common(label: &str, index: usize, predicted: &PredictedImage, targets: &Targets) -> Value {
    let prediction = &predicted.prediction;
    let mut object = json!({
        "file": label,
        "width": prediction.width,
        "height": prediction.height,
        "model_version": predicted.model_version,
        "durations": json::value("PredictDurations", &predicted.durations),
    });
    if let Some(target) = targets.annotated.get(index) {
        object["annotated"] = target.display().to_string().into();
    }
    object
}

fn describe_face(object: &mut Value, number: usize, face: &FacePrediction) {
    object["face"] = number.into();
    object["age"] = face.age.into();
    object["interval"] = interval_value(face.interval.as_ref());
    object["score"] = face.score.into();
    object["box"] = json::value("FaceBox", &face.r#box.unwrap_or_default());
    object["detected"] = json::value("FaceBox", &face.detected.unwrap_or_default());
    if let Some(explanation) = &face.explanation {
        object["explanation"] = json::value("Explanation", explanation);
    }
}

fn interval_value(interval: Option<&Interval>) -> Value {
    interval.map_or(Value::Null, |interval| json::value("Interval", interval))
}
