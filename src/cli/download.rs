//! `visage trainings download`: a file of a checkpoint, verified before it gets its name.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::NamedTempFile;
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{files::directory_of, proto::v1::DownloadCheckpointRequest};

use super::{
    Context, Error, Outcome, client::Client, json, names, receive::receive, report::size_text,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// `ID`, `trainings/ID` or `trainings/ID/checkpoints/EPOCH`
    id: String,
    /// The epoch, or `best`
    #[arg(long, value_name = "EPOCH", default_value = "best")]
    epoch: String,
    /// `model.safetensors` or `manifest.json`
    #[arg(long, value_name = "NAME", default_value = "model.safetensors")]
    file: String,
    /// Where to write it; replaced if it is there [default: the file's name, here, if that is free]
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

pub(super) async fn run(
    args: Args,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    let target = match args.output {
        Some(target) => {
            check_target(&target)?;
            target
        }
        None => free_name(&args.file)?,
    };
    let message = DownloadCheckpointRequest {
        name: names::checkpoint(&args.id, &args.epoch),
        file: args.file,
    };
    let answer = client
        .trainings()
        .download_checkpoint(Request::new(message))
        .await;
    let parts = client
        .answer(answer)?
        .map(|part| part.map(|part| (part.file, part.data)));
    let mut aside = NamedTempFile::new_in(directory_of(&target)).map_err(Error::File)?;
    let file = receive(client, parts, &mut aside, &target, context).await?;
    aside.as_file().sync_all().map_err(Error::File)?;
    // Temporary files are for their owner only; a downloaded one gets the permissions that new files here have.
    make_readable(&aside)?;
    aside
        .persist(&target)
        .map_err(|error| Error::File(error.error))?;
    if context.output.is_json() {
        context
            .output
            .object(&json::value("CheckpointFile", &file))?;
    } else {
        context.output.line(&target.display().to_string())?;
        context.output.note(&format!(
            "{}, SHA-256 {}",
            size_text(file.size_bytes),
            file.sha256
        ));
    }
    Ok(Outcome::Done)
}

/// Tells before anything is sent that no file can be written there.
pub(super) fn check_target(target: &Path) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::Usage(format!(
            "--output {}: {why}",
            target.display()
        )))
    };
    let directory = directory_of(target);
    if target == Path::new("-") {
        return refuse("standard output is not written to; name a file");
    }
    if target.is_dir() {
        return refuse("it is a directory; name a file in it");
    }
    if !directory.is_dir() {
        return refuse(&format!(
            "the directory {} does not exist",
            directory.display()
        ));
    }
    Ok(())
}

/// The file's bare name in the current directory, whatever the server calls it; never one that is taken.
fn free_name(file: &str) -> Result<PathBuf, Error> {
    let name = Path::new(file)
        .file_name()
        .ok_or_else(|| Error::Usage(format!("`{file}` is no file name")))?;
    let target = PathBuf::from(name);
    if target.exists() {
        return Err(Error::Usage(format!(
            "{} is there already; name another place with --output",
            target.display()
        )));
    }
    Ok(target)
}

#[cfg(unix)]
fn make_readable(file: &NamedTempFile) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).map_err(Error::File)
}

#[cfg(not(unix))]
fn make_readable(_: &NamedTempFile) -> Result<(), Error> {
    Ok(())
}
