//! `visage predict`: ages on images, in the order in which they were named.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};

use crate::proto::v1::{GetServerInfoRequest, PredictRequest};

use super::{
    Context, Error, Outcome,
    client::request,
    images::{self, Image},
    names,
    printer::{Printer, Targets},
};

/// Requests under way at once: while one is computed the next ones travel and are decoded.
const MOST_IN_FLIGHT: u32 = 4;
/// Drawn images come back as PNG, larger than they went, so fewer of them share a request; and a photograph may have many faces.
const MOST_DRAWN: u32 = 8;

const EXAMPLES: &str = "\
Examples:
  visage predict me.jpg
  visage predict faces/*.jpg --json
  visage predict me.jpg --interval 0.8
  visage predict me.jpg --annotate out.png
  visage predict *.jpg --annotate drawn/ --model 3
  visage predict me.jpg --explain heat.png
  visage predict group.jpg --detect-faces --annotate out.png
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
    /// Also draw the age on the image: a .png file for one image, a directory for several
    #[arg(long, value_name = "OUT")]
    annotate: Option<PathBuf>,
    /// Also show which parts of the image make the age, warm for older and cool for younger: a .png file for one image, a directory for several and for faces
    #[arg(long, value_name = "OUT")]
    explain: Option<PathBuf>,
    /// Find the faces first and predict each of them: one line a face
    #[arg(long)]
    detect_faces: bool,
    /// Take the mean over each image and its mirror image: a little more exact, and twice the work
    #[arg(long)]
    average_flip: bool,
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
    let targets = Targets::new(
        &args.files,
        args.annotate.as_deref(),
        args.explain.as_deref(),
        args.detect_faces,
    )?;
    let client = context.connect().await?;
    let info = client
        .system()
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info = client.answer(info)?;
    // A server that does not know a field takes no notice of it, and an age of the whole photograph would pass for a face's.
    let wanted = [
        ("explain", args.explain.is_some()),
        ("detect_faces", args.detect_faces),
        ("average_flip", args.average_flip),
    ];
    for (feature, is_wanted) in wanted {
        if is_wanted && !info.features.iter().any(|found| found == feature) {
            return Err(Error::Usage(format!(
                "the server, Visage {}, has no {feature}; update it",
                info.version
            )));
        }
    }
    let mut limits = info
        .limits
        .ok_or_else(|| Error::Contract("GetServerInfo returned no limits".to_owned()))?;
    if args.annotate.is_some() || args.explain.is_some() || args.detect_faces {
        limits.max_images_per_request = limits.max_images_per_request.min(MOST_DRAWN);
    }
    let mut printer = Printer::new(
        &args.files,
        targets,
        args.detect_faces,
        context.output.clone(),
    );
    let mut usable = Vec::new();
    for (index, file) in args.files.iter().enumerate() {
        match Image::find(file).and_then(|image| image.check(&limits)) {
            Ok(image) => usable.push((index, image)),
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
        explain: args.explain.is_some(),
        detect_faces: args.detect_faces,
        average_flip: args.average_flip,
        interval_level: args.interval,
        ..PredictRequest::default()
    };
    let patience = context.patience;
    let calls = images::group(usable, &limits)
        .into_iter()
        .map(|group| images::predict(client.clone(), patience, template.clone(), group));
    let mut answers = stream::iter(calls).buffered(in_flight as usize);
    while let Some(verdicts) = answers.next().await {
        for (index, verdict) in verdicts? {
            printer.take(index, verdict)?;
        }
    }
    Ok(match printer.has_failures() {
        true => Outcome::Failed,
        false => Outcome::Done,
    })
}
