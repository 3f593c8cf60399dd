//! `visage verify`: the integrity of backups or of a data directory.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    backup,
    cli::{
        commands::data::args::{damage_json, draw, print_damage},
        context::{Context, Outcome},
        error::Error,
        output::text::size_text,
    },
};

const EXAMPLES: &str = "\
Examples:
  visage verify /backup/visage             all backups of a directory
  visage verify /var/lib/visage            a data directory; the server may run

Reads every file. Exit code 1 means damage, which is printed with what it belongs to.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory given to `visage backup --to`, or a data directory
    dir: PathBuf,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let output = &mut context.output;
    let verified = Box::pin(backup::verify(&args.dir, &mut |done, total| {
        draw(output, done, total);
    }))
    .await;
    context.output.clear();
    let verified = verified?;
    let output = &context.output;
    if output.is_json() {
        output.object(&json!({
            "backups": verified.backups,
            "files": verified.files,
            "bytes": verified.bytes,
            "damaged": damage_json(&verified.damaged),
        }))?;
    } else {
        print_damage(output, &verified.damaged);
        let subject = match verified.backups.len() {
            0 => "data directory".to_owned(),
            1 => "1 backup".to_owned(),
            count => format!("{count} backups"),
        };
        output.line(&format!(
            "{subject}: {} files, {}, {} damaged",
            verified.files,
            size_text(verified.bytes),
            verified.damaged.len()
        ))?;
    }
    Ok(match verified.damaged.is_empty() {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}
