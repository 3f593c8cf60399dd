//! The JSON of a prediction, with the field names of the API.

use serde_json::{Value, json};

use crate::{
    detection::Square,
    inference::{FacePrediction, Interval, Prediction},
};

/// `faces` is present exactly if they were requested. An age that is not known, because the image
/// has no face, is null.
pub(super) fn body(prediction: &Prediction, version: &str) -> Value {
    let mut body = json!({
        // JSON has no NaN, so that becomes null.
        "age": prediction.age,
        "interval": prediction.interval.map(interval),
        "model_version": version,
        "width": prediction.dimensions.0,
        "height": prediction.dimensions.1,
    });
    if let Some(faces) = &prediction.faces {
        body["faces"] = faces.iter().map(face).collect();
    }
    body
}

fn face(face: &FacePrediction) -> Value {
    json!({
        "age": face.age,
        "interval": face.interval.map(interval),
        "box": square(face.face.crop),
        "detected": square(face.face.detected),
        "score": face.face.score,
    })
}

fn square(square: Square) -> Value {
    json!({
        "left": square.left,
        "top": square.top,
        "width": square.side,
        "height": square.side,
    })
}

fn interval(interval: Interval) -> Value {
    json!({
        "lower": interval.lower,
        "upper": interval.upper,
        "confidence": interval.level,
    })
}
