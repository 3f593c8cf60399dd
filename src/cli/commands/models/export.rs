//! `visage models export`: a model version as a file that other programs read.
//!
//! The server sends its stored files; the conversion runs here and costs the server nothing.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    cli::{
        args::{model_arg::ModelArg, paths::check_target, short_names},
        client::{self, Client, request},
        commands::models::missing_version,
        context::{Context, Outcome},
        error::Error,
        output::text::size_text,
    },
    files,
    model::{
        self,
        checkpoint::{MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest, read_model},
        description::Description,
        resnet18::layout,
        starter, torchscript, weights,
    },
    names::LIVE,
    proto::v1::{CheckpointFile, DownloadModelFileRequest, GetModelVersionRequest},
};

const EXAMPLES: &str = "\
Examples:
  visage models export live --format torchscript --output age.pt
  visage models export live --format pth --output age.pth

Formats:
  torchscript   a module: torch.jit.load(FILE)(images) returns ages in years, without Visage and torchvision
  pth           a state dict: torchvision.models.resnet18(num_classes=1).load_state_dict(torch.load(FILE, weights_only=True))
  safetensors   the stored tensors: safetensors.torch.load_file(FILE)

The input is described in `manifest.json` of the version; the command prints it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A number, an alias, or `models/MODEL/versions/VERSION` [default: live]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// The same as the argument VERSION
    #[arg(long = "version", value_name = "VERSION", conflicts_with = "version")]
    version_flag: Option<String>,
    /// Format of the file
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// File to write; replaced if it exists
    #[arg(long, short, value_name = "PATH")]
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

pub(crate) async fn run(
    args: Args,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    check_target(&args.output)?;
    let version = args.version.or(args.version_flag);
    let version = version.as_deref().unwrap_or(LIVE);
    let name = short_names::version(&args.model.model, version);
    let response = client
        .models()
        .get_model_version(request(GetModelVersionRequest { name }))
        .await;
    let version = client
        .message(response)?
        .version
        .ok_or_else(missing_version)?;
    // By number from here on, because an alias may move between two calls.
    let directory = tempfile::tempdir().map_err(Error::File)?;
    let described = directory.path().join(MANIFEST_FILE);
    download(&version.name, MANIFEST_FILE, &described, client, context).await?;
    let manifest = read_manifest(&described)?;
    let weights = directory.path().join(MODEL_FILE);
    let stored = download(&version.name, MODEL_FILE, &weights, client, context).await?;
    let size = match args.format {
        Format::Torchscript => write_file(&args.output, |temporary| {
            let state = read_model(&weights, &stored.sha256)?;
            torchscript::write(&state, manifest.label, manifest.input.size, temporary)
        })?,
        Format::Pth => write_file(&args.output, |temporary| {
            write_pth(&weights, Description::of(&manifest), temporary)
        })?,
        Format::Safetensors if stored.sha256 == starter::sha256() => {
            write_file(&args.output, |temporary| copy(&weights, temporary))?
        }
        Format::Safetensors => write_file(&args.output, |temporary| {
            write_safetensors(&weights, Description::of(&manifest), temporary)
        })?,
    };
    let output = &context.output;
    if output.is_json() {
        // As it is stored: numbers that were parsed to 32 bits would be printed with other digits.
        let text = fs_err::read(&described).map_err(Error::File)?;
        let stored: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::Contract(format!("{MANIFEST_FILE}: {error}")))?;
        let object = json!({
            "path": args.output.display().to_string(),
            "format": args.format.name(),
            "size_bytes": size,
            "model_version": version.name,
            "input": stored["input"],
            "label": stored["label"],
        });
        output.object(&object)?;
        return Ok(Outcome::Done);
    }
    output.line(&args.output.display().to_string())?;
    output.note(&format!("{}, {}", version.name, size_text(size)));
    for line in description(args.format, &manifest) {
        output.note(&line);
    }
    Ok(Outcome::Done)
}

/// Downloads a file of the version to `path` and verifies it.
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
    let response = client
        .models()
        .download_model_file(Request::new(message))
        .await;
    let parts = client
        .message(response)?
        .map(|part| part.map(|part| (part.file, part.data)));
    let mut target = fs_err::File::create(path).map_err(Error::File)?;
    client::download(
        client,
        parts,
        &mut target,
        Path::new(file),
        &mut context.output,
    )
    .await
}

/// Writes one file. It may block for a second or two, because no other task runs meanwhile.
fn write_file(
    output: &Path,
    write: impl FnOnce(&Path) -> Result<(), model::Error>,
) -> Result<u64, Error> {
    files::write_atomic_with(output, write)?;
    Ok(fs_err::metadata(output).map_err(Error::File)?.len())
}

fn copy(weights: &Path, target: &Path) -> Result<(), model::Error> {
    fs_err::copy(weights, target)?;
    Ok(())
}

/// Writes the stored tensors, adding the description that files of older versions lack.
fn write_safetensors(
    weights: &Path,
    description: Description,
    target: &Path,
) -> Result<(), model::Error> {
    let refused = |reason| weights::Error::Format {
        path: weights.to_owned(),
        reason,
    };
    let described = weights::described(&fs_err::read(weights)?, description.to_json()?);
    match described.map_err(refused)? {
        Some(described) => Ok(fs_err::write(target, described)?),
        None => copy(weights, target),
    }
}

fn write_pth(weights: &Path, description: Description, target: &Path) -> Result<(), model::Error> {
    let state = weights::read(weights)?;
    let in_torchvisions_order = layout(1);
    let entries = in_torchvisions_order.iter().filter_map(|(name, _)| {
        let tensor = state.get(name)?;
        Some((name.as_str(), tensor))
    });
    let file = weights::to_pth(entries, Some(&description.to_json()?));
    Ok(fs_err::write(target, file)?)
}

/// Input and output of the exported network.
fn description(format: Format, manifest: &Manifest) -> Vec<String> {
    let input = &manifest.input;
    let mut lines = vec![format!(
        "Input: [N, 3, {0}, {0}] in f32: RGB resized to {0} x {0} (bilinear, antialiased), scaled to 0..1, minus {1:?}, divided by {2:?}.",
        input.size, input.mean, input.std
    )];
    let label = manifest.label;
    lines.push(match format {
        Format::Torchscript => "Output: [N], ages in years, at least 0.".to_owned(),
        Format::Pth | Format::Safetensors
            if label.scale == 1.0 && label.offset == 0.0 =>
        {
            "Output of the network: [N, 1], ages in years; negative ones mean 0.".to_owned()
        }
        Format::Pth | Format::Safetensors => format!(
            "Output of the network: [N, 1]; ages in years are {} times it plus {}; negative ones mean 0.",
            label.scale, label.offset
        ),
    });
    lines
}
