//! The command: downloads a version, writes the file, and describes it.

use std::path::Path;

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::Request;

use super::{
    args::{Args, Format},
    describe,
    server::{self, ServerPrecision},
    snippet::Snippet,
    write::Source,
};
use crate::{
    cli::{
        args::paths::check_target,
        client::{self, Client, request},
        commands::models::missing_version,
        context::{Context, Outcome},
        error::Error,
        output::text::size_text,
    },
    model::{
        checkpoint::{MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest},
        onnx::{Exported, InputFormat},
        starter,
    },
    proto::v1::{
        CheckpointFile, DownloadModelFileRequest, GetModelVersionRequest, ModelVersion,
        VersionOrigin,
    },
};

pub(crate) async fn run(
    args: Args,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    args.output.as_deref().map_or(Ok(()), check_target)?;
    let input = args.input_format()?;
    let name = args.version_name();
    let response = client
        .models()
        .get_model_version(request(GetModelVersionRequest { name }))
        .await;
    let version = client
        .message(response)?
        .version
        .ok_or_else(missing_version)?;
    let target = args.target(&version.name)?;
    // By number from here on, because an alias may move between two calls.
    let directory = tempfile::tempdir().map_err(Error::File)?;
    let described = directory.path().join(MANIFEST_FILE);
    download(&version.name, MANIFEST_FILE, &described, client, context).await?;
    let manifest = read_manifest(&described)?;
    let weights = directory.path().join(MODEL_FILE);
    let stored = download(&version.name, MODEL_FILE, &weights, client, context).await?;
    let source = Source {
        exported: Exported {
            name: &version.name,
            number: version.version,
            input: &manifest.input,
            label: manifest.label,
            licence: licence(&version, &manifest),
        },
        manifest: &manifest,
        weights: &weights,
        sha256: &stored.sha256,
    };
    let file = File {
        size: source.write(args.format, input, &target)?,
        source,
        format: args.format,
        input,
        path: &target,
        server: server::precision(&version.name, client).await,
    };
    if context.output.is_json() {
        // As it is stored: numbers that were parsed to 32 bits would be printed with other digits.
        let text = fs_err::read(&described).map_err(Error::File)?;
        let stored: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::Contract(format!("{MANIFEST_FILE}: {error}")))?;
        context.output.object(&file.json(&stored))?;
        return Ok(Outcome::Done);
    }
    file.print(context)?;
    Ok(Outcome::Done)
}

/// A written file.
struct File<'a> {
    source: Source<'a>,
    format: Format,
    input: InputFormat,
    path: &'a Path,
    size: u64,
    server: Option<ServerPrecision>,
}

impl File<'_> {
    fn json(&self, manifest: &Value) -> Value {
        let server = self
            .server
            .as_ref()
            .map(|server| json!({"precision": server.name, "difference_years": server.difference}));
        json!({
            "path": self.path.display().to_string(),
            "format": self.format.name(),
            "size_bytes": self.size,
            "model_version": self.source.exported.name,
            "input": manifest["input"],
            "label": manifest["label"],
            "server": server,
            "python": self.snippet(),
        })
    }

    fn print(&self, context: &Context) -> Result<(), Error> {
        let output = &context.output;
        output.line(&self.path.display().to_string())?;
        let name = self.source.exported.name;
        output.note(&format!("{name}, {}", size_text(self.size)));
        let server = self.server.as_ref();
        for line in describe::lines(self.format, self.input, &self.source, server) {
            output.note(&line);
        }
        output.note(&format!("In Python:\n\n{}", self.snippet()));
        Ok(())
    }

    fn snippet(&self) -> String {
        let Exported { input, label, .. } = self.source.exported;
        let snippet = Snippet {
            format: self.format,
            input: self.input,
            spec: input,
            label,
            path: self.path,
        };
        snippet.text()
    }
}

/// The known terms of a version's weights.
fn licence(version: &ModelVersion, manifest: &Manifest) -> Option<&'static str> {
    let is_starter = version.origin() == VersionOrigin::Starter;
    let began_as_starter = manifest.spec["init"]["kind"] == "INIT_KIND_STARTER";
    (is_starter || began_as_starter).then_some(starter::TERMS)
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
