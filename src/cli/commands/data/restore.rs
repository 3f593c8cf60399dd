//! `visage restore`: a data directory from a backup.

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
  visage restore /backup/visage --to /var/lib/visage                the newest backup
  visage restore /backup/visage --to restored --backup 2026-11-30T12-00-00Z

All files are verified while they are copied. Running trainings of the backup continue.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory given to `visage backup --to`
    dir: PathBuf,
    /// Data directory to create; it must be missing or empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Name of the backup [default: the newest one]
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    /// Complete the directory although files of the backup are damaged
    #[arg(long)]
    ignore_damage: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context) -> Result<Outcome, Error> {
    let output = &mut context.output;
    let restored = backup::restore(
        &args.dir,
        args.backup.as_deref(),
        &args.to,
        args.ignore_damage,
        &mut |done, total| draw(output, done, total),
    );
    context.output.clear();
    let restored = restored?;
    let output = &context.output;
    let target = args.to.display().to_string();
    if output.is_json() {
        output.object(&json!({
            "path": target,
            "backup": restored.backup,
            "files": restored.files,
            "bytes": restored.bytes,
            "restarting_trainings": restored.restarting,
            "damaged": damage_json(&restored.damaged),
        }))?;
    } else {
        output.line(&target)?;
        output.note(&format!(
            "Restored {} files, {}, of the backup {}. Start a server with `visage serve --data-dir {target}`.",
            restored.files,
            size_text(restored.bytes),
            restored.backup
        ));
        print_damage(output, &restored.damaged);
    }
    Ok(match restored.damaged.is_empty() {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}
