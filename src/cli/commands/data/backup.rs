//! `visage backup`: a consistent copy of a data directory.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    backup::{self, Options},
    cli::{
        commands::data::args::{damage_json, data_dir, draw, print_damage},
        context::{Context, Outcome},
        error::Error,
        output::text::size_text,
    },
};

const EXAMPLES: &str = "\
Examples:
  visage backup --to /backup/visage                      while the server runs, or of a stopped one
  visage backup --to /backup/visage --keep 30            remove all but the 30 newest backups
  visage backup --to /backup/visage --data-dir /var/lib/visage

Files that an earlier backup in the directory has are not copied again. Exit code 1 also means that
files of the data directory are damaged; the backup is then complete except for these.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of the backups; created if missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Data directory [default: that of `visage serve` here, see `visage config`]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Backups to keep, including this one; older ones are removed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let options = Options {
        data_dir: data_dir(args.data_dir, context)?,
        to: args.to,
        keep: args.keep.map(|keep| keep as usize),
    };
    let output = &mut context.output;
    let created = Box::pin(backup::create(&options, &mut |done, total| {
        draw(output, done, total);
    }))
    .await;
    context.output.clear();
    let created = created?;
    let output = &context.output;
    let path = created.path.display().to_string();
    if output.is_json() {
        output.object(&json!({
            "path": path,
            "files": created.files,
            "bytes": created.bytes,
            "copied_files": created.copied_files,
            "copied_bytes": created.copied_bytes,
            "removed_backups": created.removed_backups,
            "restarting_trainings": created.restarting,
            "damaged": damage_json(&created.damaged),
        }))?;
    } else {
        output.line(&path)?;
        output.note(&format!(
            "{} files, {}; {} of them ({}) are new.",
            created.files,
            size_text(created.bytes),
            created.copied_files,
            size_text(created.copied_bytes)
        ));
        for name in &created.removed_backups {
            output.note(&format!("Removed the backup {name}."));
        }
        for training in &created.restarting {
            output.note(&format!(
                "{training} replaced its full checkpoint meanwhile; after a restore it starts again."
            ));
        }
        print_damage(output, &created.damaged);
    }
    Ok(match created.damaged.is_empty() {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}
