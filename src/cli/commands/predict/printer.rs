//! Prints predictions to stdout, as a table or as JSON.

use std::path::PathBuf;

use crate::{
    cli::{
        commands::predict::{
            objects,
            requests::{ImageResult, PredictedImage},
            targets::Targets,
        },
        error::Error,
        output::{Output, table},
    },
    proto::v1::Interval,
};

pub(super) struct Printer {
    output: Output,
    /// Prints each face on its own line.
    has_faces: bool,
    /// Width of the first column.
    label_width: usize,
    has_header: bool,
}

impl Printer {
    pub(super) fn new(files: &[PathBuf], has_faces: bool, output: Output) -> Self {
        let widths = files
            .iter()
            .map(|file| table::width(&file.display().to_string()));
        Self {
            output,
            label_width: widths.max().unwrap_or(0).max(4),
            has_faces,
            has_header: false,
        }
    }

    pub(super) fn print(
        &mut self,
        label: &str,
        index: usize,
        result: &ImageResult,
        targets: &Targets,
    ) -> Result<(), Error> {
        let predicted = match result {
            Ok(predicted) => predicted,
            Err(reason) => return self.print_failure(label, reason),
        };
        if self.output.is_json() {
            let objects = objects::of_image(label, index, predicted, self.has_faces, targets);
            return objects
                .iter()
                .try_for_each(|object| self.output.object(object));
        }
        match self.has_faces {
            true => self.print_faces(label, predicted),
            false => self.print_image(label, predicted),
        }
    }

    fn print_image(&mut self, label: &str, predicted: &PredictedImage) -> Result<(), Error> {
        let prediction = &predicted.prediction;
        let widths = [self.label_width, 5, 12, 0];
        self.print_header(prediction.interval.as_ref(), &widths)?;
        let cells = [
            label.to_owned(),
            format!("{:.1}", prediction.age),
            interval_text(prediction.interval.as_ref()),
            predicted.model_version.clone(),
        ];
        self.output.line(&table::line(&cells, &widths))
    }

    fn print_faces(&mut self, label: &str, predicted: &PredictedImage) -> Result<(), Error> {
        let faces = &predicted.prediction.faces;
        let widths = [self.label_width, 4, 5, 12, 22, 0];
        let first = faces.first().and_then(|face| face.interval.as_ref());
        self.print_header(first, &widths)?;
        if faces.is_empty() {
            let cells = [
                label.to_owned(),
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
                label.to_owned(),
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

    fn print_failure(&self, label: &str, reason: &str) -> Result<(), Error> {
        self.output.warn(&format!("{label}: {reason}"));
        match self.output.is_json() {
            true => self.output.object(&objects::of_failure(label, reason)),
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
