//! What `visage predict` says of each image, in the order of the files, and where its drawn images go.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde_json::{Value, json};

use crate::proto::v1::{FacePrediction, Interval};

use super::{
    Error,
    images::{Predicted, Verdict},
    json,
    output::Output,
    table,
};

/// Where drawn images go; both are empty without their options.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The annotated image of each file.
    annotated: Vec<PathBuf>,
    /// The explained image of each file; with faces its name goes on with the face's number.
    explained: Vec<PathBuf>,
    /// Images that are read and must not be written over, as [`real`] names them.
    read: HashSet<PathBuf>,
}

/// What one of the options asks.
struct Wanted<'a> {
    option: &'static str,
    /// What it draws.
    drawn: &'static str,
    out: &'a Path,
    /// Whether an image may have several.
    has_several: bool,
}

impl Targets {
    /// Makes the directories that are named.
    pub(super) fn new(
        files: &[PathBuf],
        annotate: Option<&Path>,
        explain: Option<&Path>,
        has_faces: bool,
    ) -> Result<Self, Error> {
        if let (Some(one), Some(other)) = (annotate, explain)
            && real(one) == real(other)
            && !one.is_dir()
            && is_png(one)
        {
            return Err(Error::Usage(format!(
                "--annotate and --explain cannot both write {}",
                one.display()
            )));
        }
        let mut taken: HashSet<PathBuf> = files.iter().map(|file| real(file)).collect();
        let mut targets = Targets {
            read: taken.clone(),
            ..Targets::default()
        };
        if let Some(out) = annotate {
            let wanted = Wanted {
                option: "--annotate",
                drawn: "the annotated image",
                out,
                has_several: false,
            };
            targets.annotated = wanted.targets(files, &mut taken)?;
        }
        if let Some(out) = explain {
            let wanted = Wanted {
                option: "--explain",
                drawn: "the explained image",
                out,
                has_several: has_faces,
            };
            targets.explained = wanted.targets(files, &mut taken)?;
        }
        Ok(targets)
    }

    /// Where a face, counted from 1, of an image is explained.
    fn explained_face(&self, index: usize, face: usize) -> Option<PathBuf> {
        let base = self.explained.get(index)?;
        let stem = base.file_stem().unwrap_or_default().to_string_lossy();
        let mut target = base.with_file_name(format!("{stem}-face{face}.png"));
        while self.read.contains(&real(&target)) {
            let stem = target.file_stem().unwrap_or_default().to_string_lossy();
            target = base.with_file_name(format!("{stem}-explained.png"));
        }
        Some(target)
    }
}

impl Wanted<'_> {
    fn targets(
        &self,
        files: &[PathBuf],
        taken: &mut HashSet<PathBuf>,
    ) -> Result<Vec<PathBuf>, Error> {
        let (option, out) = (self.option, self.out);
        if files.len() == 1 && !out.is_dir() && !self.has_several {
            if !is_png(out) {
                return Err(Error::Usage(format!(
                    "{} is a PNG, so {option} must end in .png or be a directory that exists, not {}",
                    self.drawn,
                    out.display()
                )));
            }
            taken.insert(real(out));
            return Ok(vec![out.to_owned()]);
        }
        if (is_png(out) && !out.is_dir()) || out.is_file() {
            let reason = match self.has_several {
                true => "with --detect-faces an image may have several, so".to_owned(),
                false => format!("with {} images", files.len()),
            };
            return Err(Error::Usage(format!(
                "{reason} {option} names a directory, not {}",
                out.display()
            )));
        }
        fs::create_dir_all(out).map_err(Error::File)?;
        // `a/x.jpg` and `b/x.jpg` must not end in one file, nor may an image that was read be written over.
        let mut targets = Vec::with_capacity(files.len());
        for file in files {
            let stem = match file.as_path() == Path::new("-") {
                true => "stdin".to_owned(),
                false => file
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            };
            let mut target = out.join(format!("{stem}.png"));
            let mut count = 2;
            while !taken.insert(real(&target)) {
                target = out.join(format!("{stem}-{count}.png"));
                count += 1;
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

/// One name for a file that has several, as `faces/a.png` and `./faces/a.png` do; the file need not be there yet.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    match (fs::canonicalize(directory), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

fn is_png(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// Prints verdicts in the order of the files, whatever order they come in.
pub(super) struct Printer {
    output: Output,
    labels: Vec<String>,
    targets: Targets,
    /// Whether there is a line for each face.
    has_faces: bool,
    waiting: BTreeMap<usize, Verdict>,
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
            waiting: BTreeMap::new(),
            next: 0,
            has_header: false,
            has_failures: false,
        }
    }

    /// Whether an image that was printed had no answer.
    pub(super) fn has_failures(&self) -> bool {
        self.has_failures
    }

    pub(super) fn take(&mut self, index: usize, verdict: Verdict) -> Result<(), Error> {
        self.waiting.insert(index, verdict);
        while let Some(verdict) = self.waiting.remove(&self.next) {
            let index = self.next;
            self.next += 1;
            match verdict {
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
    fn write(&self, index: usize, predicted: &Predicted) -> Result<(), Error> {
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

    /// What is the same for an image and for each of its faces.
    fn object(&self, index: usize, predicted: &Predicted) -> Value {
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

    fn print(&mut self, index: usize, predicted: &Predicted) -> Result<(), Error> {
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

    fn print_faces(&mut self, index: usize, predicted: &Predicted) -> Result<(), Error> {
        let faces = &predicted.prediction.faces;
        if self.output.is_json() {
            let mut common = self.object(index, predicted);
            common["faces"] = faces.len().into();
            if faces.is_empty() {
                // No age: what reads ages only must not find any.
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

    /// Prints the names of the columns before the first row; `interval` is of that row.
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
        self.output.complain(&format!("{label}: {reason}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_read_are_not_written_over_whatever_their_paths_look_like() {
        let directory = tempfile::tempdir().unwrap();
        let faces = directory.path().join("faces");
        fs::create_dir_all(&faces).unwrap();
        let files = ["a.png", "b.jpg", "b-face1.png"].map(|name| {
            fs::write(faces.join(name), b"theirs").unwrap();
            // As `./faces/a.png` is beside `faces/`, without a change of the current directory.
            faces.join("../faces").join(name)
        });
        let annotated = Targets::new(&files, Some(&faces), None, false).unwrap();
        let expected = ["a-2.png", "b.png", "b-face1-2.png"].map(|name| faces.join(name));
        assert_eq!(annotated.annotated, expected);
        let explained = Targets::new(&files, None, Some(&faces), true).unwrap();
        assert_eq!(
            explained.explained_face(1, 1),
            Some(faces.join("b-face1-explained.png"))
        );
        assert_eq!(
            explained.explained_face(1, 2),
            Some(faces.join("b-face2.png"))
        );
    }

    #[test]
    fn file_that_is_still_to_be_made_has_one_name() {
        let directory = tempfile::tempdir().unwrap();
        let faces = directory.path().join("faces");
        fs::create_dir_all(&faces).unwrap();
        assert_eq!(
            real(&faces.join("../faces/new.png")),
            real(&faces.join("new.png"))
        );
        assert_eq!(real(Path::new("new.png")), real(Path::new("./new.png")));
    }
}
