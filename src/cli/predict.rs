//! `visage predict`: ages on pictures, in the order in which they were named.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use fs_err as fs;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::proto::v1::{GetServerInfoRequest, PredictRequest};

use super::{
    Context, Error, Outcome,
    client::request,
    json, names,
    output::Output,
    pictures::{self, Picture, Predicted, Verdict},
    table,
};

/// Requests under way at once: while one is computed the next ones travel and are decoded.
const MOST_IN_FLIGHT: u32 = 4;
/// Annotated pictures come back as PNG, larger than they went, so fewer of them share a request.
const MOST_ANNOTATED: u32 = 8;

const EXAMPLES: &str = "\
Examples:
  visage predict me.jpg
  visage predict faces/*.jpg --json
  visage predict me.jpg --interval 0.8
  visage predict me.jpg --annotate out.png
  visage predict *.jpg --annotate drawn/ --model 3
  curl -s https://example.org/me.jpg | visage predict -

A file that cannot be used is named, the others go on, and the exit code is 1.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// JPEG, PNG, WebP or BMP files; `-` reads one from standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The version: a number, an alias, or `models/MODEL/versions/VERSION` [default: live]
    #[arg(long, value_name = "VERSION")]
    model: Option<String>,
    /// Share of true ages that the interval shall hold, such as 0.8; of the levels that the version has, the next higher one [default: 0.9]
    #[arg(long, value_name = "LEVEL")]
    interval: Option<f64>,
    /// Also draw the age on the picture: a .png file for one picture, a folder for several
    #[arg(long, value_name = "OUT")]
    annotate: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    if args
        .files
        .iter()
        .filter(|file| file.as_path() == Path::new("-"))
        .count()
        > 1
    {
        return Err(Error::Usage(
            "standard input, `-`, can be read only once".to_owned(),
        ));
    }
    let targets = targets(&args)?;
    let client = context.connect().await?;
    let info = client
        .system()
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let mut limits = client
        .answer(info)?
        .limits
        .ok_or_else(|| Error::Contract("GetServerInfo returned no limits".to_owned()))?;
    if args.annotate.is_some() {
        limits.max_images_per_request = limits.max_images_per_request.min(MOST_ANNOTATED);
    }
    let mut printer = Printer::new(&args.files, targets, context.output.clone());
    let mut usable = Vec::new();
    for (index, file) in args.files.iter().enumerate() {
        match Picture::find(file).and_then(|picture| picture.check(&limits)) {
            Ok(picture) => usable.push((index, picture)),
            Err(reason) => printer.take(index, Err(reason))?,
        }
    }
    let in_flight =
        (limits.max_queued_images / limits.max_images_per_request.max(1)).clamp(1, MOST_IN_FLIGHT);
    let template = PredictRequest {
        model: args
            .model
            .as_deref()
            .map(|version| names::version("age", version))
            .unwrap_or_default(),
        annotate: args.annotate.is_some(),
        interval_level: args.interval,
        ..PredictRequest::default()
    };
    let patience = context.patience;
    let calls = pictures::group(usable, &limits)
        .into_iter()
        .map(|group| pictures::predict(client.clone(), patience, template.clone(), group));
    let mut answers = stream::iter(calls).buffered(in_flight as usize);
    while let Some(verdicts) = answers.next().await {
        for (index, verdict) in verdicts? {
            printer.take(index, verdict)?;
        }
    }
    Ok(match printer.has_failures {
        true => Outcome::Failed,
        false => Outcome::Done,
    })
}

/// Where the annotated picture of each file goes; empty without `--annotate`.
fn targets(args: &Args) -> Result<Vec<PathBuf>, Error> {
    let Some(out) = &args.annotate else {
        return Ok(Vec::new());
    };
    let is_png = out
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    if args.files.len() == 1 && !out.is_dir() {
        if !is_png {
            return Err(Error::Usage(format!(
                "the annotated picture is a PNG, so --annotate must end in .png or be a folder that exists, not {}",
                out.display()
            )));
        }
        return Ok(vec![out.clone()]);
    }
    if is_png || out.is_file() {
        return Err(Error::Usage(format!(
            "with {} pictures --annotate names a folder, not {}",
            args.files.len(),
            out.display()
        )));
    }
    fs::create_dir_all(out).map_err(Error::File)?;
    // `a/x.jpg` and `b/x.jpg` must not end in one file, nor may a picture that was read be written over.
    let mut taken: HashSet<PathBuf> = args.files.iter().cloned().collect();
    let mut targets = Vec::with_capacity(args.files.len());
    for file in &args.files {
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
        while !taken.insert(target.clone()) {
            target = out.join(format!("{stem}-{count}.png"));
            count += 1;
        }
        targets.push(target);
    }
    Ok(targets)
}

/// Prints verdicts in the order of the files, whatever order they come in.
struct Printer {
    output: Output,
    labels: Vec<String>,
    targets: Vec<PathBuf>,
    waiting: BTreeMap<usize, Verdict>,
    next: usize,
    /// Width of the first column.
    label_width: usize,
    has_header: bool,
    has_failures: bool,
}

impl Printer {
    fn new(files: &[PathBuf], targets: Vec<PathBuf>, output: Output) -> Self {
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
            waiting: BTreeMap::new(),
            next: 0,
            has_header: false,
            has_failures: false,
        }
    }

    fn take(&mut self, index: usize, verdict: Verdict) -> Result<(), Error> {
        self.waiting.insert(index, verdict);
        while let Some(verdict) = self.waiting.remove(&self.next) {
            let index = self.next;
            self.next += 1;
            match verdict {
                Ok(predicted) => self.print(index, &predicted)?,
                Err(reason) => self.print_failure(index, &reason)?,
            }
        }
        Ok(())
    }

    fn print(&mut self, index: usize, predicted: &Predicted) -> Result<(), Error> {
        let annotated = self
            .targets
            .get(index)
            .map(|target| target.display().to_string());
        if let Some(target) = self.targets.get(index) {
            fs::write(target, &predicted.prediction.annotated_png).map_err(Error::File)?;
        }
        let prediction = &predicted.prediction;
        if self.output.is_json() {
            let mut object = json!({
                "file": self.labels[index],
                "age": prediction.age,
                "interval": prediction.interval.as_ref().map(|interval| json::value("Interval", interval)),
                "width": prediction.width,
                "height": prediction.height,
                "model_version": predicted.model_version,
                "durations": json::value("PredictDurations", &predicted.durations),
            });
            if let Some(annotated) = annotated {
                object["annotated"] = Value::String(annotated);
            }
            return self.output.object(&object);
        }
        let widths = [self.label_width, 5, 12, 0];
        if !self.has_header {
            self.has_header = true;
            let confidence = prediction
                .interval
                .as_ref()
                .map_or(0.9, |interval| interval.confidence);
            let header = [
                "file".to_owned(),
                "age".to_owned(),
                format!("{:.0}% interval", 100.0 * confidence),
                "model version".to_owned(),
            ];
            self.output.line(&table::line(&header, &widths))?;
        }
        let interval = prediction.interval.as_ref().map_or_else(
            || "unknown".to_owned(),
            |interval| format!("{:.1} - {:.1}", interval.lower, interval.upper),
        );
        let cells = [
            self.labels[index].clone(),
            format!("{:.1}", prediction.age),
            interval,
            predicted.model_version.clone(),
        ];
        self.output.line(&table::line(&cells, &widths))
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
