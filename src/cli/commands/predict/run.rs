//! Arguments of `visage predict`, and the requests for all images.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};

use crate::{
    cli::{
        args::short_names,
        client::{Client, request},
        commands::predict::{
            images::{self, Image},
            printer::Printer,
            targets::Targets,
        },
        context::{Context, Outcome},
        error::Error,
    },
    proto::v1::{GetServerInfoRequest, GetServerInfoResponse, PredictRequest},
};

/// Concurrent requests: while one is computed, the next ones are sent and decoded.
const MAX_IN_FLIGHT: u32 = 4;
/// Images per request if images are drawn or faces detected: drawn images return as larger PNGs,
/// and an image may have many faces.
const MAX_DRAWN: u32 = 8;

const EXAMPLES: &str = "\
Examples:
  visage predict me.jpg
  visage predict faces/*.jpg --json
  visage predict me.jpg --interval 0.8
  visage predict me.jpg --annotate out.png
  visage predict *.jpg --annotate drawn/ --version 3
  visage predict me.jpg --explain heat.png
  visage predict group.jpg --detect-faces --annotate out.png
  curl -s https://example.org/me.jpg | visage predict -

A file that cannot be used is reported, the others are predicted, and the exit code is 1.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// JPEG, PNG, WebP or BMP files; `-` reads one from standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Version: a number, an alias, or `models/MODEL/versions/VERSION` [default: live]
    #[arg(long, alias = "model", value_name = "VERSION")]
    version: Option<String>,
    /// Confidence level of the interval, such as 0.8, rounded up to a level that the version
    /// supports [default: 0.9]
    #[arg(long, value_name = "LEVEL")]
    interval: Option<f64>,
    /// Also write the image with the age drawn on it: a .png file for one image, a directory for
    /// several
    #[arg(long, value_name = "OUT")]
    annotate: Option<PathBuf>,
    /// Also write a heat map of the image regions that raise (warm) or lower (cool) the age: a .png
    /// file for one image, a directory for several and for faces
    #[arg(long, value_name = "OUT")]
    explain: Option<PathBuf>,
    /// Detect the faces and predict each of them, one line per face
    #[arg(long)]
    detect_faces: bool,
    /// Average over each image and its mirror image: slightly more accurate, twice the computation
    #[arg(long)]
    average_flip: bool,
}

impl Args {
    /// Optional features of the server that the flags need.
    fn features(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("explain", self.explain.is_some()),
            ("detect_faces", self.detect_faces),
            ("average_flip", self.average_flip),
        ];
        flags
            .into_iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(feature, _)| feature)
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let stdin = Path::new("-");
    if args.files.iter().filter(|file| *file == stdin).count() > 1 {
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
    let info = server_info(&client, &args).await?;
    let mut limits = info
        .limits
        .ok_or_else(|| Error::Contract("GetServerInfo returned no limits".to_owned()))?;
    if args.annotate.is_some() || args.explain.is_some() || args.detect_faces {
        limits.max_images_per_request = limits.max_images_per_request.min(MAX_DRAWN);
    }
    let output = context.output.clone();
    let mut printer = Printer::new(&args.files, targets, args.detect_faces, output);
    let mut usable = Vec::new();
    for (index, file) in args.files.iter().enumerate() {
        match Image::find(file).and_then(|image| image.check(&limits)) {
            Ok(image) => usable.push((index, image)),
            Err(reason) => printer.push(index, Err(reason))?,
        }
    }
    let in_flight =
        (limits.max_queued_images / limits.max_images_per_request.max(1)).clamp(1, MAX_IN_FLIGHT);
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
    let retry = context.retry;
    let calls = images::group(usable, &limits)
        .into_iter()
        .map(|group| images::predict(client.clone(), retry, template.clone(), group));
    let mut responses = stream::iter(calls).buffered(in_flight as usize);
    while let Some(results) = responses.next().await {
        for (index, result) in results? {
            printer.push(index, result)?;
        }
    }
    Ok(match printer.has_failures() {
        true => Outcome::Failed,
        false => Outcome::Done,
    })
}

/// Limits and features of the server.
///
/// # Errors
/// A server without a requested feature, which would ignore the unknown field: the age of the
/// whole image would pass for that of a face.
async fn server_info(client: &Client, args: &Args) -> Result<GetServerInfoResponse, Error> {
    let mut system = client.system();
    let response = system
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info = client.message(response)?;
    match args
        .features()
        .find(|feature| !info.features.iter().any(|found| found == feature))
    {
        None => Ok(info),
        Some(missing) => Err(Error::Usage(format!(
            "the server, Visage {}, does not support {missing}; update it",
            info.version
        ))),
    }
}
