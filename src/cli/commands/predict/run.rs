//! Sends the requests for all images, and hands the results to the printer or the table.

use std::{
    path::{Path, PathBuf},
    pin::pin,
};

use fs_err as fs;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    cli::{
        args::{short_names, watch_flag::ctrl_c},
        client::{Client, request},
        commands::predict::{
            Args,
            groups::Groups,
            inputs::Inputs,
            printer::Printer,
            requests::{self, ImageResult, PredictedImage},
            summary::Summary,
            table_file::{Format, TableFile},
            targets::Targets,
        },
        context::{Context, Outcome},
        error::Error,
        output::Output,
    },
    proto::v1::{GetServerInfoRequest, GetServerInfoResponse, Limits, PredictRequest},
};

/// Concurrent requests: while one is computed, the next ones are sent and decoded.
const MAX_IN_FLIGHT: u32 = 4;
/// Images per request if images are drawn or faces detected: drawn images return as larger PNGs,
/// and an image may have many faces.
const MAX_DRAWN: u32 = 8;

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let stdin = Path::new("-");
    if args.files.iter().filter(|file| *file == stdin).count() > 1 {
        return Err(Error::Usage(
            "standard input, `-`, can be read only once".to_owned(),
        ));
    }
    let format = args.output.as_deref().map(Format::of).transpose()?;
    let inputs = Inputs::of(&args.files);
    for warning in &inputs.warnings {
        context.output.warn(&format!("warning: {warning}"));
    }
    if inputs.files.is_empty() {
        return Err(Error::Usage("no image was found".to_owned()));
    }
    let targets = Targets::new(
        &inputs.files,
        args.annotate.as_deref(),
        args.explain.as_deref(),
        args.detect_faces,
    )?;
    let client = context.connect().await?;
    let limits = limits(&client, &args).await?;
    let template = PredictRequest {
        model: args
            .version
            .as_deref()
            .map(|version| short_names::version("age", version))
            .unwrap_or_default(),
        annotate: args.annotate.is_some(),
        explain: args.explain.is_some(),
        detect_faces: args.detect_faces,
        average_flip: args.average_flip,
        interval_level: args.interval,
        ..PredictRequest::default()
    };
    let sink = match (&args.output, format) {
        (Some(path), Some(format)) => {
            Sink::Table(TableFile::create(path, format, args.detect_faces)?)
        }
        _ => Sink::Printer(Printer::new(
            &inputs.files,
            args.detect_faces,
            context.output.clone(),
        )),
    };
    let mut results = Results {
        files: &inputs.files,
        targets,
        has_faces: args.detect_faces,
        sink,
        summary: Summary::default(),
        output: context.output.clone(),
    };
    let retry = context.retry;
    let calls = Groups::of(&inputs.files, &limits)
        .map(|group| requests::predict(client.clone(), retry, template.clone(), group));
    let in_flight =
        (limits.max_queued_images / limits.max_images_per_request.max(1)).clamp(1, MAX_IN_FLIGHT);
    // In the order of the files, because groups are consecutive.
    let mut responses = stream::iter(calls).buffered(in_flight as usize);
    let is_table = args.output.is_some();
    let mut interrupt = pin!(ctrl_c());
    loop {
        let group = tokio::select! {
            group = responses.next() => group,
            () = &mut interrupt, if is_table => {
                results.output.clear();
                results.output.warn(&format!(
                    "Interrupted after {} of {} images; no table was written.",
                    results.summary.images,
                    inputs.files.len()
                ));
                return Ok(Outcome::Interrupted);
            }
        };
        let Some(group) = group else {
            break;
        };
        let group = group.inspect_err(|_| results.output.clear())?;
        for (index, result) in group {
            results.add(index, &result)?;
        }
    }
    drop(responses);
    results.finish(args.output.as_deref())
}

enum Sink {
    Printer(Printer),
    Table(TableFile),
}

struct Results<'a> {
    files: &'a [PathBuf],
    targets: Targets,
    has_faces: bool,
    sink: Sink,
    summary: Summary,
    output: Output,
}

impl Results<'_> {
    /// Adds the result of the next file.
    fn add(&mut self, index: usize, result: &ImageResult) -> Result<(), Error> {
        let label = self.files[index].display().to_string();
        if let Ok(predicted) = result {
            self.write_drawn(index, predicted)?;
        }
        self.summary.add(&label, result, self.has_faces);
        match &mut self.sink {
            Sink::Printer(printer) => printer.print(&label, index, result, &self.targets),
            Sink::Table(table) => {
                table.add(&label, index, result, &self.targets)?;
                let (done, all) = (self.summary.images, self.files.len());
                self.output
                    .draw(done as f64 / all as f64, format!("{done}/{all} images"));
                Ok(())
            }
        }
    }

    /// Writes the drawn images.
    fn write_drawn(&self, index: usize, predicted: &PredictedImage) -> Result<(), Error> {
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

    fn finish(self, table: Option<&Path>) -> Result<Outcome, Error> {
        let (summary, output) = (self.summary, self.output);
        output.clear();
        let fails = match (self.sink, table) {
            (Sink::Table(file), Some(path)) => {
                file.finish()?;
                let path = path.display();
                match output.is_json() {
                    true => output.object(&json!({
                        "output": path.to_string(),
                        "images": summary.images,
                        "failed": summary.failed,
                    }))?,
                    false => output.line(&format!("{path}: {}", summary.text()))?,
                }
                summary.all_failed()
            }
            _ => summary.failed > 0,
        };
        if let Some(hint) = summary.hint() {
            output.note(&hint);
        }
        Ok(match fails {
            true => Outcome::Failed,
            false => Outcome::Done,
        })
    }
}

/// Limits of the server on the requests.
///
/// # Errors
/// A server without a requested feature, which would ignore the unknown field: the age of the
/// whole image would pass for that of a face.
async fn limits(client: &Client, args: &Args) -> Result<Limits, Error> {
    let mut system = client.system();
    let response = system
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info: GetServerInfoResponse = client.message(response)?;
    let missing = args
        .features()
        .find(|feature| !info.features.iter().any(|found| found == feature));
    if let Some(missing) = missing {
        return Err(Error::Usage(format!(
            "the server, Visage {}, does not support {missing}; update it",
            info.version
        )));
    }
    let mut limits = info
        .limits
        .ok_or_else(|| Error::Contract("GetServerInfo returned no limits".to_owned()))?;
    if args.annotate.is_some() || args.explain.is_some() || args.detect_faces {
        limits.max_images_per_request = limits.max_images_per_request.min(MAX_DRAWN);
    }
    Ok(limits)
}
