//! `visage models export`: a model version as a file that other programs read.
//!
//! The server sends what it stores; the conversion happens here, so that a server is never asked to compute for it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    files,
    model::{
        self,
        checkpoint::{MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest, read_model},
        resnet18::layout,
        torchscript, weights,
    },
    proto::v1::{CheckpointFile, DownloadModelFileRequest, GetModelVersionRequest},
};

use super::{
    Context, Error, Outcome,
    client::{Client, request},
    models::ModelArg,
    names,
    receive::receive,
    report::size_text,
};

const EXAMPLES: &str = "\
Formats:
  torchscript   a module: torch.jit.load(FILE)(images) gives ages in years, without Visage and without torchvision
  pth           a state dict: torchvision.models.resnet18(num_classes=1).load_state_dict(torch.load(FILE, weights_only=True))
  safetensors   the same tensors as they are stored: safetensors.torch.load_file(FILE)

Pictures are put in as `manifest.json` of the version says; the command prints it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A number, an alias, or `models/MODEL/versions/VERSION`
    #[arg(default_value = "live")]
    version: String,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to write it; replaced if it is there
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Torchscript,
    Pth,
    Safetensors,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Torchscript => "torchscript",
            Self::Pth => "pth",
            Self::Safetensors => "safetensors",
        }
    }
}

pub(super) async fn run(
    args: Args,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    let name = names::version(&args.model.model, &args.version);
    let answer = client
        .models()
        .get_model_version(request(GetModelVersionRequest { name }))
        .await;
    let version = client
        .answer(answer)?
        .version
        .ok_or_else(|| Error::Contract("the model version came back empty".to_owned()))?;
    // By its number from here on: an alias may move between two calls.
    let folder = tempfile::tempdir().map_err(Error::File)?;
    let described = folder.path().join(MANIFEST_FILE);
    download(&version.name, MANIFEST_FILE, &described, client, context).await?;
    let manifest = read_manifest(&described)?;
    let weights = folder.path().join(MODEL_FILE);
    let stored = download(&version.name, MODEL_FILE, &weights, client, context).await?;
    files::write_durably_by(&args.output, |aside| {
        convert(args.format, &weights, &stored.sha256, &manifest, aside)
    })?;
    let size = fs_err::metadata(&args.output).map_err(Error::File)?.len();
    let output = &context.output;
    if output.is_json() {
        // As it is written: numbers that were read to 32 bits would get digits of their own.
        let text = fs_err::read(&described).map_err(Error::File)?;
        let written: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::Contract(format!("{MANIFEST_FILE}: {error}")))?;
        output.object(&json!({
            "path": args.output.display().to_string(),
            "format": args.format.name(),
            "size_bytes": size,
            "model_version": version.name,
            "input": written["input"],
            "label": written["label"],
        }))?;
        return Ok(Outcome::Done);
    }
    output.line(&args.output.display().to_string())?;
    output.note(&format!("{}, {}", version.name, size_text(size)));
    for line in description(args.format, &manifest) {
        output.note(&line);
    }
    Ok(Outcome::Done)
}

/// Fetches a file of the version to `path`, verified.
async fn download(
    version: &str,
    file: &str,
    path: &Path,
    client: &Client,
    context: &mut Context,
) -> Result<CheckpointFile, Error> {
    let message = DownloadModelFileRequest {
        name: version.to_owned(),
        file: file.to_owned(),
    };
    let answer = client
        .models()
        .download_model_file(Request::new(message))
        .await;
    let parts = client
        .answer(answer)?
        .map(|part| part.map(|part| (part.file, part.data)));
    let mut target = fs_err::File::create(path).map_err(Error::File)?;
    receive(client, parts, &mut target, Path::new(file), context).await
}

/// Writes the weights in the format to `target`. It computes for a second or two, in which this program has nothing else to do.
fn convert(
    format: Format,
    weights: &Path,
    sha256: &str,
    manifest: &Manifest,
    target: &Path,
) -> Result<(), model::Error> {
    let state = read_model(weights, sha256)?;
    match format {
        Format::Torchscript => {
            torchscript::write(&state, manifest.label, manifest.input.size, target)
        }
        Format::Pth => {
            let state = weights::read(weights)?;
            let in_torchvisions_order = layout(1);
            let entries = in_torchvisions_order.iter().filter_map(|(name, _)| {
                let tensor = state.get(name)?;
                Some((name.as_str(), tensor))
            });
            Ok(fs_err::write(target, weights::to_pth(entries))?)
        }
        Format::Safetensors => {
            fs_err::copy(weights, target)?;
            Ok(())
        }
    }
}

/// How to use the file.
fn description(format: Format, manifest: &Manifest) -> Vec<String> {
    let input = &manifest.input;
    let mut lines = vec![format!(
        "Input: [N, 3, {0}, {0}] in f32: RGB resized to {0} x {0} (bilinear, antialiased), scaled to 0..1, minus {1:?}, divided by {2:?}.",
        input.size, input.mean, input.std
    )];
    let label = manifest.label;
    lines.push(match format {
        Format::Torchscript => "Output: [N], ages in years.".to_owned(),
        Format::Pth | Format::Safetensors if label.scale == 1.0 && label.offset == 0.0 => {
            "Output of the network: [N, 1], ages in years.".to_owned()
        }
        Format::Pth | Format::Safetensors => format!(
            "Output of the network: [N, 1]; ages in years are {} times it plus {}.",
            label.scale, label.offset
        ),
    });
    lines
}
