//! `visage repair`: compares a database with the files beside it, and makes it their owner.

use std::{collections::HashSet, path::PathBuf};

use serde_json::json;

use crate::{
    artifacts::Artifacts,
    backup,
    cli::{
        commands::data::args::{damage_json, draw, print_damage},
        context::{Context, Outcome},
        error::Error,
    },
    store::{Snapshot, Store, database_path},
};

const EXAMPLES: &str = "\
Examples:
  visage repair /var/lib/visage            show what the database and the files do not have in common
  visage repair /var/lib/visage --adopt    use this database with these files

After an incomplete restore the server refuses to start, because the database belongs to other files
or is an older copy. If possible, restore both from the same backup (`visage restore`). Otherwise
--adopt accepts the database as it is, or creates an empty one if it is missing; the next start
moves files that it does not know into `quarantine`, where they are kept for `quarantine_expiry`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Data directory of a stopped server
    dir: PathBuf,
    /// Make the database the owner of the files
    #[arg(long)]
    adopt: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let dir = fs_err::canonicalize(&args.dir).map_err(Error::File)?;
    let artifacts = dir.join("artifacts");
    if !database_path(&dir).exists() && !artifacts.is_dir() {
        return Err(Error::Usage(format!(
            "{} is not a data directory; name the `data_dir` of a server",
            dir.display()
        )));
    }
    let mut adopted = None;
    if args.adopt {
        // Locks the directory, so that no server is running.
        let store = Store::adopt(&dir).await.map_err(backup::Error::from)?;
        store.mark_files().map_err(backup::Error::from)?;
        adopted = Some(store);
    }
    let known = match database_path(&dir).exists() {
        true => known_digests(&dir).await?,
        false => HashSet::new(),
    };
    let stored = Artifacts::list(&artifacts).map_err(Error::File)?;
    let unknown: Vec<_> = stored
        .iter()
        .filter(|digest| !known.contains(&digest.sha256))
        .collect();
    let output = &mut context.output;
    let damaged = match database_path(&dir).exists() {
        true => {
            let progress = &mut |done, total| draw(output, done, total);
            let verified = Box::pin(backup::verify(&dir, progress)).await?;
            verified.damaged
        }
        false => Vec::new(),
    };
    context.output.clear();
    if let Some(store) = adopted {
        store.close().await.map_err(backup::Error::from)?;
    }
    let output = &context.output;
    if output.is_json() {
        output.object(&json!({
            "adopted": args.adopt,
            "unknown_artifacts": unknown.iter().map(|digest| &digest.sha256).collect::<Vec<_>>(),
            "damaged": damage_json(&damaged),
        }))?;
        return Ok(outcome(args.adopt, &damaged));
    }
    print_damage(output, &damaged);
    output.line(&format!(
        "{} artifacts that the database does not know, {} damaged or missing files that it names",
        unknown.len(),
        damaged.len()
    ))?;
    output.note(match args.adopt {
        true => "The database is now the owner of the files; start the server.",
        false => "Nothing was changed; `--adopt` makes the database the owner of the files.",
    });
    Ok(outcome(args.adopt, &damaged))
}

fn outcome(adopted: bool, damaged: &[backup::Damage]) -> Outcome {
    match adopted || damaged.is_empty() {
        true => Outcome::Done,
        false => Outcome::Failed,
    }
}

async fn known_digests(dir: &std::path::Path) -> Result<HashSet<String>, Error> {
    let scratch = tempfile::tempdir().map_err(Error::File)?;
    let mut database = Snapshot::of_data_dir(dir, scratch.path())
        .await
        .map_err(backup::Error::from)?;
    let references = database.references().await.map_err(backup::Error::from)?;
    database.close().await.map_err(backup::Error::from)?;
    let digests = references.artifacts.into_iter().map(|found| found.sha256);
    Ok(digests.collect())
}
