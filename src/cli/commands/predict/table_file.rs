//! Predictions in a CSV or JSON Lines file, which gets its name when it is complete.

use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

use crate::{
    cli::{
        args::paths::check_target,
        commands::predict::{
            objects,
            requests::{ImageResult, PredictedImage},
            targets::Targets,
        },
        error::Error,
    },
    files::AtomicFile,
    proto::v1::{FaceBox, Interval},
};

/// Columns of the CSV file. Those of faces are empty without `--detect-faces`.
const COLUMNS: [&str; 14] = [
    "file",
    "face",
    "age",
    "interval_lower",
    "interval_upper",
    "interval_level",
    "image_width",
    "image_height",
    "face_left",
    "face_top",
    "face_width",
    "face_height",
    "model_version",
    "error",
];
/// Error of an image without a face, which has no age.
const NO_FACE: &str = "no face was found";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Csv,
    JsonLines,
}

impl Format {
    /// Format of a file by its extension.
    ///
    /// # Errors
    /// Another extension, or a path that no file can be written to.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let format = match extension.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "jsonl" => Self::JsonLines,
            _ => {
                return Err(Error::Usage(format!(
                    "--output must end in .csv or .jsonl, got {}",
                    path.display()
                )));
            }
        };
        check_target(path)?;
        Ok(format)
    }
}

pub(super) struct TableFile {
    writer: Writer,
    has_faces: bool,
}

enum Writer {
    Csv(Box<csv::Writer<AtomicFile>>),
    JsonLines(BufWriter<AtomicFile>),
}

impl TableFile {
    pub(super) fn create(path: &Path, format: Format, has_faces: bool) -> Result<Self, Error> {
        let file = AtomicFile::create(path).map_err(Error::File)?;
        let writer = match format {
            Format::JsonLines => Writer::JsonLines(BufWriter::new(file)),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(file);
                writer.write_record(COLUMNS).map_err(failed)?;
                Writer::Csv(Box::new(writer))
            }
        };
        Ok(Self { writer, has_faces })
    }

    pub(super) fn add(
        &mut self,
        label: &str,
        index: usize,
        result: &ImageResult,
        targets: &Targets,
    ) -> Result<(), Error> {
        match &mut self.writer {
            Writer::Csv(writer) => {
                let rows = match result {
                    Ok(predicted) => rows(label, predicted, self.has_faces),
                    Err(reason) => vec![Row {
                        error: reason.clone(),
                        ..Row::of(label)
                    }],
                };
                rows.iter()
                    .try_for_each(|row| writer.write_record(row.cells()))
                    .map_err(failed)
            }
            Writer::JsonLines(writer) => {
                let objects = match result {
                    Ok(predicted) => {
                        objects::of_image(label, index, predicted, self.has_faces, targets)
                    }
                    Err(reason) => vec![objects::of_failure(label, reason)],
                };
                objects
                    .iter()
                    .try_for_each(|object| writeln!(writer, "{object}"))
                    .map_err(Error::File)
            }
        }
    }

    /// Gives the complete file its name.
    pub(super) fn finish(self) -> Result<(), Error> {
        let file = match self.writer {
            Writer::Csv(writer) => writer
                .into_inner()
                .map_err(|error| Error::File(io::Error::other(error.to_string())))?,
            Writer::JsonLines(writer) => writer
                .into_inner()
                .map_err(|error| Error::File(error.into_error()))?,
        };
        file.commit().map_err(Error::File)
    }
}

fn failed(error: csv::Error) -> Error {
    // The writer fails for no other reason than its file.
    let text = error.to_string();
    let kind = error.into_kind();
    Error::File(if let csv::ErrorKind::Io(error) = kind {
        error
    } else {
        io::Error::other(text)
    })
}

/// A row of the CSV file.
#[derive(Default)]
struct Row<'a> {
    file: &'a str,
    face: Option<usize>,
    age: Option<f64>,
    interval: Option<Interval>,
    size: Option<(u32, u32)>,
    place: Option<FaceBox>,
    model_version: &'a str,
    error: String,
}

impl<'a> Row<'a> {
    fn of(file: &'a str) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let years = |value: Option<f64>| value.map(|value| format!("{value:.2}"));
        let interval = self.interval.as_ref();
        let place = self.place.as_ref();
        let cells = [
            Some(self.file.to_owned()),
            self.face.map(|face| face.to_string()),
            years(self.age),
            years(interval.map(|interval| interval.lower)),
            years(interval.map(|interval| interval.upper)),
            interval.map(|interval| interval.confidence.to_string()),
            self.size.map(|(width, _)| width.to_string()),
            self.size.map(|(_, height)| height.to_string()),
            place.map(|place| place.left.to_string()),
            place.map(|place| place.top.to_string()),
            place.map(|place| place.width.to_string()),
            place.map(|place| place.height.to_string()),
            Some(self.model_version.to_owned()),
            Some(self.error.clone()),
        ];
        cells.map(Option::unwrap_or_default)
    }
}

/// A row for the image, or for each of its faces.
fn rows<'a>(file: &'a str, predicted: &'a PredictedImage, has_faces: bool) -> Vec<Row<'a>> {
    let prediction = &predicted.prediction;
    let common = || Row {
        size: Some((prediction.width, prediction.height)),
        model_version: &predicted.model_version,
        ..Row::of(file)
    };
    if !has_faces {
        return vec![Row {
            age: Some(prediction.age),
            interval: prediction.interval,
            ..common()
        }];
    }
    if prediction.faces.is_empty() {
        return vec![Row {
            error: NO_FACE.to_owned(),
            ..common()
        }];
    }
    (1..)
        .zip(&prediction.faces)
        .map(|(number, face)| Row {
            face: Some(number),
            age: Some(face.age),
            interval: face.interval,
            place: face.r#box,
            ..common()
        })
        .collect()
}
