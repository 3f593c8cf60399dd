//! `visage dataset push`: uploads a directory or an archive, and creates a dataset from it.

use std::path::PathBuf;

use tonic::{Code, Status};

use crate::{
    cli::{
        args::{dataset_args::ReadingArgs, short_names},
        client::{Client, request},
        commands::dataset::{
            archive::Archive,
            background::{self, Reporter},
            named,
            send::{Interrupted, Sent, send},
        },
        context::{Context, Outcome},
        error::Error,
        output::text::size_text,
    },
    names,
    proto::v1::{CreateDatasetRequest, Dataset, GetDatasetRequest, GetServerInfoRequest},
};

const EXAMPLES: &str = "\
Examples:
  visage dataset push faces/ --id faces
  visage dataset push faces.zip --id faces --display-name \"Faces of 2026\"
  visage train datasets/faces              train on the uploaded dataset

A directory is packed into a temporary tar of its images and manifests first;
TMPDIR selects its location. An archive may be a zip, a tar or a gzipped tar of
images whose names start with the age, or of images with a manifest.csv.
The upload resumes when the connection is lost or the server restarts. After
Ctrl-C, --resume continues it if no file has changed.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of images, or a zip, tar or tar.gz file; on this machine
    source: PathBuf,
    /// Id of the dataset, such as `faces-2`; its name is `datasets/ID`
    #[arg(long, alias = "name", value_name = "ID")]
    id: String,
    /// Display name
    #[arg(long, value_name = "TEXT", default_value = "")]
    display_name: String,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Resume this interrupted upload of the same directory or archive
    #[arg(long, value_name = "UPLOAD")]
    resume: Option<String>,
    /// URL of the server's HTTP port, if it has another host than the API [default: from the
    /// server]
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Return after the upload, without waiting for unpacking and scanning
    #[arg(long)]
    detach: bool,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let id = short_names::dataset_id(&args.id);
    if !names::is_id(id) {
        return Err(Error::Usage(format!(
            "--id must be an id of 1 to 63 of a-z, 0-9 and -, starting with a letter, got {id:?}"
        )));
    }
    let client = context.connect().await?;
    check_free(id, &client).await?;
    let base = match args.http {
        Some(base) => base.trim_end_matches('/').to_owned(),
        None => http_base(&client).await?,
    };
    let source = args.source;
    let pack = move |reporter: &Reporter| Archive::open(&source, reporter).map_err(Error::File);
    let Some(archive) = background::run(pack, &mut context.output).await? else {
        let text = "Interrupted before the upload; nothing was uploaded.";
        context.output.warn(text);
        return Ok(Outcome::Interrupted);
    };
    for warning in archive.warnings() {
        context.output.note(&format!("warning: {warning}"));
    }
    let upload = match send(archive, base, args.resume, client.credentials(), context).await? {
        Sent::Complete(upload) => upload,
        Sent::Interrupted(interrupted) => {
            context.output.warn(&interrupted_message(&interrupted));
            return Ok(Outcome::Interrupted);
        }
    };
    let message = CreateDatasetRequest {
        dataset_id: id.to_owned(),
        upload,
        display_name: args.display_name,
        columns: args.reading.columns(),
        age_pattern: args.reading.age_pattern.unwrap_or_default(),
    };
    let dataset = create(message, &client, context).await?;
    named::show_when_done(dataset, args.detach, &client, context).await
}

/// The remaining upload, and the ways to continue and to delete it.
fn interrupted_message(interrupted: &Interrupted) -> String {
    let Some(upload) = &interrupted.upload else {
        return "Interrupted; nothing was uploaded.".to_owned();
    };
    let total = size_text(interrupted.total);
    let received = match interrupted.received {
        Some(received) => format!("the server has {} of {total}", size_text(received)),
        None => format!("the server has a part of {total}"),
    };
    format!(
        "Interrupted; {received}. Continue with the same command and `--resume {upload}`, or \
         delete the upload with `visage dataset uploads delete {upload}`."
    )
}

/// Checks before the upload that the name is free.
async fn check_free(id: &str, client: &Client) -> Result<(), Error> {
    let name = short_names::dataset(id);
    let found = client
        .datasets()
        .get_dataset(request(GetDatasetRequest { name }))
        .await;
    match found {
        Ok(_) => Err(Error::Refused(Box::new(Status::already_exists(format!(
            "datasets/{id} already exists; choose another with --id, or delete it with `visage dataset delete {id}`"
        ))))),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(client.failure(status)),
    }
}

/// URL of the HTTP port: the host of the API with the port that the server reports.
async fn http_base(client: &Client) -> Result<String, Error> {
    let info = client
        .system()
        .get_server_info(request(GetServerInfoRequest {}))
        .await;
    let info = client.message(info)?;
    let accepts_uploads = info
        .limits
        .is_some_and(|limits| limits.max_upload_bytes > 0);
    if info.http_port == 0 || !accepts_uploads {
        let text = "this server does not accept uploads; register a directory of the server with `visage dataset register`";
        return Err(Error::Refused(Box::new(Status::failed_precondition(text))));
    }
    let server = client.server();
    let uri = server.parse::<http::Uri>().ok();
    let address = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.host()?)));
    let (scheme, host) = address.ok_or_else(|| {
        Error::Usage(format!(
            "uploads need the HTTP port, which {server} does not name; set --http http://127.0.0.1:{}",
            info.http_port
        ))
    })?;
    Ok(format!("{scheme}://{host}:{}", info.http_port))
}

/// Creates the dataset. A repeated call finds the dataset that the first one created.
async fn create(
    message: CreateDatasetRequest,
    client: &Client,
    context: &Context,
) -> Result<Dataset, Error> {
    let created = client
        .repeat(&context.retry, async || {
            client
                .datasets()
                .create_dataset(request(message.clone()))
                .await
        })
        .await;
    match created {
        Ok(created) => created.dataset.ok_or_else(named::missing),
        Err(Error::Refused(status)) if status.code() == Code::AlreadyExists => {
            let name = short_names::dataset(&message.dataset_id);
            let found = named::fetch(&name, client, context).await?;
            match found.upload == message.upload {
                true => Ok(found),
                false => Err(Error::Refused(status)),
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_upload_says_what_the_server_has() {
        let mut interrupted = Interrupted {
            upload: Some("u".to_owned()),
            received: Some(1 << 20),
            total: 4 << 20,
        };
        let text = interrupted_message(&interrupted);
        assert!(
            text.starts_with("Interrupted; the server has 1.0 MiB of 4.0 MiB. Continue"),
            "{text}"
        );
        assert!(text.contains("`--resume u`"), "{text}");
        interrupted.received = None;
        let text = interrupted_message(&interrupted);
        assert!(text.contains("a part of 4.0 MiB"), "{text}");
        interrupted.upload = None;
        let text = interrupted_message(&interrupted);
        assert_eq!(text, "Interrupted; nothing was uploaded.");
    }
}
