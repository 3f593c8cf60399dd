//! Prints predictions in the order of the files, and writes the drawn images.

use std::{collections::BTreeMap, path::PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use crate::{
    cli::{
        commands::predict::{
            images::{ImageResult, PredictedImage},
            targets::Targets,
        },
        error::Error,
        output::{Output, json, table},
    },
    proto::v1::{FacePrediction, Interval},
};

/// Buffers results until those of all earlier files are printed.
pub(super) struct Printer {
    output: Output,
    labels: Vec<String>,
    targets: Targets,
    /// Prints each face on its own line.
    has_faces: bool,
    pending: BTreeMap<usize, ImageResult>,
    next: usize,
    /// Width of the first column.
    label_width: usize,
    has_header: bool,
    has_failures: bool,
}

impl Printer {
    pub(super) fn new(
        files: &[PathBuf],
        targets: Targets,
        has_faces: bool,
        output: Output,
    ) -> Self {
        let labels: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        Self {
            output,
            label_width: labels
                .iter()
                .map(|label| table::width(label))
                .max()
                .unwrap_or(0)
                .max(4),
            labels,
            targets,
            has_faces,
            pending: BTreeMap::new(),
            next: 0,
            has_header: false,
            has_failures: false,
        }
    }

    pub(super) fn has_failures(&self) -> bool {
        self.has_failures
    }

    pub(super) fn push(&mut self, index: usize, result: ImageResult) -> Result<(), Error> {
        self.pending.insert(index, result);
        while let Some(result) = self.pending.remove(&self.next) {
            let index = self.next;
            self.next += 1;
            match result {
                Ok(predicted) => {
                    self.write(index, &predicted)?;
                    match self.has_faces {
                        true => self.print_faces(index, &predicted)?,
                        false => self.print(index, &predicted)?,
                    }
                }
                Err(reason) => self.print_failure(index, &reason)?,
            }
        }
        Ok(())
    }

    /// Writes the drawn images.
    fn write(&self, index: usize, predicted: &PredictedImage) -> Result<(), Error> {
        let prediction = &predicted.prediction;
        if let Some(target) = self.targets.annotated.get(index) {
            fs::write(target, &prediction.annotated_png).map_err(Error::File)?;
        }
        if !self.has_faces {
            if let Some(target) = self.targets.explained.get(index) {
                fs::write(target, &prediction.explanation_png).map_err(Error::File)?;
            }
            return Ok(());
        }
        for (number, face) in (1..).zip(&prediction.faces) {
            if let Some(target) = self.targets.explained_face(index, number) {
                fs::write(target, &face.explanation_png).map_err(Error::File)?;
            }
        }
        Ok(())
    }

    /// JSON fields that an image and its faces have in common.
    fn object(&self, index: usize, predicted: &PredictedImage) -> Value {
        let prediction = &predicted.prediction;
        let mut object = json!({
            "file": self.labels[index],
            "width": prediction.width,
            "height": prediction.height,
            "model_version": predicted.model_version,
            "durations": json::value("PredictDurations", &predicted.durations),
        });
        if let Some(target) = self.targets.annotated.get(index) {
            object["annotated"] = target.display().to_string().into();
        }
        object
    }

    fn print(&mut self, index: usize, predicted: &PredictedImage) -> Result<(), Error> {
        let prediction = &predicted.prediction;
        if self.output.is_json() {
            let mut object = self.object(index, predicted);
            object["age"] = prediction.age.into();
            object["interval"] = interval_value(prediction.interval.as_ref());
            if let Some(explanation) = &prediction.explanation {
                object["explanation"] = json::value("Explanation", explanation);
            }
            if let Some(target) = self.targets.explained.get(index) {
                object["explained"] = target.display().to_string().into();
            }
            return self.output.object(&object);
        }
        let widths = [self.label_width, 5, 12, 0];
        self.print_header(prediction.interval.as_ref(), &widths)?;
        let cells = [
            self.labels[index].clone(),
            format!("{:.1}", prediction.age),
            interval_text(prediction.interval.as_ref()),
            predicted.model_version.clone(),
        ];
        self.output.line(&table::line(&cells, &widths))
    }

    fn print_faces(&mut self, index: usize, predicted: &PredictedImage) -> Result<(), Error> {
        let faces = &predicted.prediction.faces;
        if self.output.is_json() {
            let mut common = self.object(index, predicted);
            common["faces"] = faces.len().into();
            if faces.is_empty() {
                // Null, so that a script that reads ages does not find one.
                common["age"] = Value::Null;
                return self.output.object(&common);
            }
            for (number, face) in (1..).zip(faces) {
                let mut object = common.clone();
                self.describe_face(&mut object, index, number, face);
                self.output.object(&object)?;
            }
            return Ok(());
        }
        let widths = [self.label_width, 4, 5, 12, 22, 0];
        let first = faces.first().and_then(|face| face.interval.as_ref());
        self.print_header(first, &widths)?;
        if faces.is_empty() {
            let cells = [
                self.labels[index].clone(),
                "none".to_owned(),
                String::new(),
                String::new(),
                String::new(),
                predicted.model_version.clone(),
            ];
            return self.output.line(&table::line(&cells, &widths));
        }
        for (number, face) in (1..).zip(faces) {
            let place = face.r#box.unwrap_or_default();
            let cells = [
                self.labels[index].clone(),
                number.to_string(),
                format!("{:.1}", face.age),
                interval_text(face.interval.as_ref()),
                format!(
                    "{}x{} at {}, {}",
                    place.width, place.height, place.left, place.top
                ),
                predicted.model_version.clone(),
            ];
            self.output.line(&table::line(&cells, &widths))?;
        }
        Ok(())
    }

    fn describe_face(
        &self,
        object: &mut Value,
        index: usize,
        number: usize,
        face: &FacePrediction,
    ) {
        object["face"] = number.into();
        object["age"] = face.age.into();
        object["interval"] = interval_value(face.interval.as_ref());
        object["score"] = face.score.into();
        object["box"] = json::value("FaceBox", &face.r#box.unwrap_or_default());
        object["detected"] = json::value("FaceBox", &face.detected.unwrap_or_default());
        if let Some(explanation) = &face.explanation {
            object["explanation"] = json::value("Explanation", explanation);
        }
        if let Some(target) = self.targets.explained_face(index, number) {
            object["explained"] = target.display().to_string().into();
        }
    }

    /// Prints the column names before the first row, whose interval is given.
    fn print_header(&mut self, interval: Option<&Interval>, widths: &[usize]) -> Result<(), Error> {
        if self.has_header {
            return Ok(());
        }
        self.has_header = true;
        let confidence = interval.map_or(0.9, |interval| interval.confidence);
        let interval = format!("{:.0}% interval", 100.0 * confidence);
        let names: &[&str] = match self.has_faces {
            true => &["file", "face", "age", &interval, "square", "model version"],
            false => &["file", "age", &interval, "model version"],
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.output.line(&table::line(&names, widths))
    }

    fn print_failure(&mut self, index: usize, reason: &str) -> Result<(), Error> {
        self.has_failures = true;
        let label = &self.labels[index];
        self.output.warn(&format!("{label}: {reason}"));
        match self.output.is_json() {
            true => self
                .output
                .object(&json!({ "file": label, "error": reason })),
            false => Ok(()),
        }
    }
}

fn interval_text(interval: Option<&Interval>) -> String {
    interval.map_or_else(
        || "unknown".to_owned(),
        |interval| format!("{:.1} - {:.1}", interval.lower, interval.upper),
    )
}

fn interval_value(interval: Option<&Interval>) -> Value {
    interval.map_or(Value::Null, |interval| json::value("Interval", interval))
}
