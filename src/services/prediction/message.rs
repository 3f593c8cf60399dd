//! Conversion of predictions to messages.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    detection::Square,
    inference::{FacePrediction, Interval, Prediction, RenderedExplanation},
    proto::v1,
};

pub(super) fn prediction(prediction: Prediction) -> v1::Prediction {
    let face_detection = match &prediction.faces {
        None => v1::FaceDetection::Unspecified,
        Some(faces) if faces.is_empty() => v1::FaceDetection::NoFace,
        Some(_) => v1::FaceDetection::Found,
    };
    let faces = prediction.faces.unwrap_or_default();
    let (explanation, explanation_png) = explanation(prediction.explanation);
    v1::Prediction {
        age: prediction.age,
        interval: prediction.interval.map(interval),
        annotated_png: prediction.annotated_png.unwrap_or_default().into(),
        width: prediction.dimensions.0,
        height: prediction.dimensions.1,
        explanation_png,
        faces: faces.into_iter().map(face).collect(),
        explanation,
        face_detection: face_detection.into(),
        cached: prediction.cached.unwrap_or_default(),
    }
}

fn face(prediction: FacePrediction) -> v1::FacePrediction {
    let (explanation, explanation_png) = explanation(prediction.explanation);
    v1::FacePrediction {
        r#box: Some(face_box(prediction.face.crop)),
        score: prediction.face.score as f32,
        age: prediction.age,
        interval: prediction.interval.map(interval),
        explanation_png,
        explanation,
        detected: Some(face_box(prediction.face.detected)),
    }
}

fn face_box(square: Square) -> v1::FaceBox {
    v1::FaceBox {
        left: square.left,
        top: square.top,
        width: square.side,
        height: square.side,
    }
}

fn interval(interval: Interval) -> v1::Interval {
    v1::Interval {
        lower: interval.lower,
        upper: interval.upper,
        confidence: interval.level,
    }
}

fn explanation(rendered: Option<RenderedExplanation>) -> (Option<v1::Explanation>, Bytes) {
    let Some(RenderedExplanation { explanation, png }) = rendered else {
        return (None, Bytes::new());
    };
    let side = u32::try_from(explanation.side).unwrap_or(u32::MAX);
    let message = v1::Explanation {
        rows: side,
        columns: side,
        years: explanation.years,
        base_years: explanation.base,
    };
    (Some(message), png.unwrap_or_default().into())
}

/// The longest time of any image for each step, and the total time of the request.
pub(super) fn durations(predictions: &[Prediction], total: Duration) -> v1::PredictDurations {
    let longest = |of: fn(&Prediction) -> Duration| {
        duration(predictions.iter().map(of).max().unwrap_or_default())
    };
    v1::PredictDurations {
        decode: longest(|prediction| prediction.decode),
        queue: longest(|prediction| prediction.queue),
        inference: longest(|prediction| prediction.inference),
        total: duration(total),
    }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
