//! `visage dataset uploads`: archives that were uploaded and that no dataset uses.

use crate::{
    cli::{
        client::request,
        context::{Context, Outcome},
        error::Error,
        output::{
            json, table,
            text::{size_text, time_text},
        },
    },
    proto::v1::{DeleteUploadRequest, ListUploadsRequest, Upload},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List interrupted and unused uploads, the last changed first
    #[command(visible_alias = "ls")]
    List,
    /// Delete uploads with their bytes
    #[command(visible_alias = "rm")]
    Delete {
        /// Ids, as `visage dataset uploads` prints them
        #[arg(required = true, value_name = "UPLOAD")]
        uploads: Vec<String>,
    },
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Outcome, Error> {
    match args.command.unwrap_or(Command::List) {
        Command::List => list(context).await,
        Command::Delete { uploads } => delete(uploads, context).await,
    }
}

async fn list(context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let response = client
        .datasets()
        .list_uploads(request(ListUploadsRequest {}))
        .await;
    let found = client.message(response)?.uploads;
    let output = &context.output;
    if output.is_json() {
        for upload in &found {
            output.object(&json::value("Upload", upload))?;
        }
        return Ok(Outcome::Done);
    }
    if found.is_empty() {
        output.note("No unused uploads.");
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header = ["UPLOAD", "SIZE", "RECEIVED", "CHANGED", "EXPIRES"];
    table::print(output, &header, &rows)?;
    Ok(Outcome::Done)
}

fn row(upload: &Upload) -> Vec<String> {
    let share = 100.0 * upload.received_bytes as f64 / upload.size_bytes.max(1) as f64;
    vec![
        upload.upload.clone(),
        size_text(upload.size_bytes),
        format!("{share:.0} %"),
        time_text(upload.update_time),
        time_text(upload.expire_time),
    ]
}

async fn delete(uploads: Vec<String>, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    for upload in uploads {
        let message = DeleteUploadRequest {
            upload: upload.clone(),
        };
        client.message(client.datasets().delete_upload(request(message)).await)?;
        context.output.note(&format!("Deleted upload {upload}."));
    }
    Ok(Outcome::Done)
}
