//! `visage trainings download`: a file of a checkpoint, verified before it gets its name.

use std::path::{Path, PathBuf};

use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    cli::{
        args::{paths::check_target, short_names},
        client::{Client, download},
        context::{Context, Outcome},
        error::Error,
        output::{json, text::size_text},
    },
    files::AtomicFile,
    proto::v1::DownloadCheckpointRequest,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `ID`, `trainings/ID` or `trainings/ID/checkpoints/EPOCH`
    id: String,
    /// Epoch of the checkpoint, or `best`
    #[arg(long, value_name = "EPOCH", default_value = "best")]
    epoch: String,
    /// `model.safetensors`, `manifest.json` or `training-images.bin`
    #[arg(long, value_name = "NAME", default_value = "model.safetensors")]
    file: String,
    /// File to write; replaced if it exists [default: the file's name in the current directory,
    /// unless it exists]
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(
    args: Args,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    let target = match args.output {
        Some(target) => {
            check_target(&target)?;
            target
        }
        None => default_target(&args.file)?,
    };
    let message = DownloadCheckpointRequest {
        name: short_names::checkpoint(&args.id, &args.epoch),
        file: args.file,
    };
    let mut trainings = client.trainings();
    let response = trainings.download_checkpoint(Request::new(message)).await;
    let parts = client
        .message(response)?
        .map(|part| part.map(|part| (part.file, part.data)));
    let mut written = AtomicFile::create(&target).map_err(Error::File)?;
    let output = &mut context.output;
    let file = download(client, parts, &mut written, &target, output).await?;
    written.commit().map_err(Error::File)?;
    if output.is_json() {
        output.object(&json::value("CheckpointFile", &file))?;
    } else {
        output.line(&target.display().to_string())?;
        let size = size_text(file.size_bytes);
        output.note(&format!("{size}, SHA-256 {}", file.sha256));
    }
    Ok(Outcome::Done)
}

/// The file's bare name in the current directory; an error if it exists.
fn default_target(file: &str) -> Result<PathBuf, Error> {
    let name = Path::new(file)
        .file_name()
        .ok_or_else(|| Error::Usage(format!("`{file}` is not a file name")))?;
    let target = PathBuf::from(name);
    if target.exists() {
        return Err(Error::Usage(format!(
            "{} already exists; select another file with --output",
            target.display()
        )));
    }
    Ok(target)
}
