//! `visage backup`.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fs_err as fs;
use uuid::Uuid;

use crate::{
    files,
    store::{Identity, Snapshot},
};

use super::{
    Damage, Error, Progress,
    collect::{Collector, Earlier},
    content::Content,
    manifest::{self, DATABASE, Entry, FILES, FilesWriter, PARTIAL, Summary},
    prune,
};

/// Copies of the database before a backup gives up; each next one only copies what changed.
const MAX_ATTEMPTS: u32 = 20;

/// Copies of the database for the sake of a full checkpoint that was replaced meanwhile.
const MAX_REPLACED_ATTEMPTS: u32 = 3;

#[derive(Debug)]
pub(crate) struct Options {
    pub data_dir: PathBuf,
    /// Directory of the backups.
    pub to: PathBuf,
    /// Backups to keep, with the new one; all if `None`.
    pub keep: Option<usize>,
}

/// A complete backup.
#[derive(Debug)]
pub(crate) struct Created {
    pub path: PathBuf,
    pub files: u64,
    /// Bytes of all files and of the database.
    pub bytes: u64,
    /// Files, and their bytes, that no earlier backup had.
    pub copied_files: u64,
    pub copied_bytes: u64,
    pub removed_backups: Vec<String>,
    /// Missing and damaged files of the data directory, which the backup does not have.
    pub damaged: Vec<Damage>,
    pub restarting: Vec<String>,
}

/// Backs up a data directory; its server may run.
///
/// # Errors
/// A database that cannot be read, and failures of the file system.
pub(crate) async fn create(options: &Options, progress: Progress<'_>) -> Result<Created, Error> {
    let data_dir = fs::canonicalize(&options.data_dir)?;
    files::create_private_dir(&options.to)?;
    let root = fs::canonicalize(&options.to)?;
    if root.starts_with(&data_dir) {
        return Err(Error::Inside { data_dir, to: root });
    }
    let _lock = prune::lock(&root)?;
    remove_partial(&root)?;
    let mut content = Content::open(&root)?;
    let earlier = earlier(&root)?;
    let random = Uuid::new_v4().simple().to_string();
    let partial = manifest::backups(&root).join(format!("{PARTIAL}{random}"));
    fs::create_dir_all(&partial)?;

    let mut missing_before = BTreeSet::new();
    let mut attempt = 1;
    let (summary, bytes) = loop {
        let copied = copy_database(&data_dir, &partial).await?;
        let mut collector = Collector {
            data_dir: &data_dir,
            content: &mut content,
            earlier: &earlier,
            files: FilesWriter::create(&partial)?,
            progress: &mut *progress,
            missing: Vec::new(),
            damaged: copied.problems,
            restarting: Vec::new(),
        };
        collector.run(&copied.references)?;
        let missing = collector.missing_paths();
        // A server that is running may have deleted files since its database was copied.
        let may_be_deleted = copied.is_live && !missing.is_subset(&missing_before);
        let is_replaced = copied.is_live && !collector.restarting.is_empty();
        let may_retry = (may_be_deleted && attempt < MAX_ATTEMPTS)
            || (is_replaced && attempt < MAX_REPLACED_ATTEMPTS);
        if may_retry {
            missing_before = missing;
            attempt += 1;
            continue;
        }
        let Collector {
            files,
            missing,
            mut damaged,
            restarting,
            ..
        } = collector;
        let (file_count, file_bytes) = (files.count, files.bytes);
        files.finish()?;
        damaged.extend(missing);
        let database = Entry::of_file(&partial, DATABASE)?;
        let bytes = file_bytes + database.bytes;
        let summary = Summary {
            format: Summary::FORMAT,
            time: copied.time,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            schema: copied.schema,
            store_id: copied.identity.as_ref().map(|found| found.id.clone()),
            generation: copied.identity.map(|found| found.generation),
            database,
            files: Entry::of_file(&partial, FILES)?,
            file_count,
            file_bytes,
            damaged,
            restarting,
        };
        break (summary, bytes);
    };
    summary.write(&partial)?;
    let path = publish(&root, &partial, &summary.time)?;
    let removed_backups = match options.keep {
        Some(keep) => prune::keep_newest(&root, keep)?,
        None => Vec::new(),
    };
    Ok(Created {
        path,
        files: summary.file_count,
        bytes,
        copied_files: content.copied_files,
        copied_bytes: content.copied_bytes,
        removed_backups,
        damaged: summary.damaged,
        restarting: summary.restarting,
    })
}

/// A copy of the database, and what it names.
struct Copied {
    is_live: bool,
    time: String,
    schema: i64,
    identity: Option<Identity>,
    references: crate::store::References,
    problems: Vec<Damage>,
}

async fn copy_database(data_dir: &Path, partial: &Path) -> Result<Copied, Error> {
    let target = partial.join(DATABASE);
    files::remove_if_exists(&target)?;
    let scratch = tempfile::tempdir_in(partial)?;
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut source = Snapshot::of_data_dir(data_dir, scratch.path()).await?;
    source.copy_to(&target).await?;
    let is_live = source.is_live();
    source.close().await?;
    let mut copy = Snapshot::of_file(&target).await?;
    let problems = copy.problems().await?.into_iter().map(|problem| Damage {
        path: DATABASE.to_owned(),
        problem: format!("is damaged: {problem}"),
        of: Vec::new(),
    });
    let copied = Copied {
        is_live,
        time,
        schema: copy.schema(),
        identity: copy.identity().cloned(),
        problems: problems.collect(),
        references: copy.references().await?,
    };
    copy.close().await?;
    Ok(copied)
}

/// Makes the backup durable and gives it its name, which is the time.
fn publish(root: &Path, partial: &Path, time: &str) -> io::Result<PathBuf> {
    // Colons are not allowed on every file system that a backup may be copied to.
    let time = time.replace(':', "-");
    let backups = manifest::backups(root);
    let free = (1..)
        .map(|number| match number {
            1 => time.clone(),
            _ => format!("{time}.{number}"),
        })
        .map(|name| backups.join(name))
        .find(|path| !path.exists());
    let path = free.unwrap_or_else(|| backups.join(&time));
    files::sync_file_system(root)?;
    fs::rename(partial, &path)?;
    files::sync_directory(&backups)?;
    Ok(path)
}

fn remove_partial(root: &Path) -> io::Result<()> {
    let backups = manifest::backups(root);
    fs::create_dir_all(&backups)?;
    for entry in fs::read_dir(&backups)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Files of datasets in the newest backup that can be read.
fn earlier(root: &Path) -> Result<Earlier, Error> {
    let mut found = Earlier::new();
    let Some(newest) = manifest::names(root)?.pop() else {
        return Ok(found);
    };
    let Ok(entries) = manifest::read_files(&manifest::backups(root).join(newest)) else {
        return Ok(found);
    };
    for entry in entries.flatten().filter(|entry| entry.modified.is_some()) {
        found.insert(entry.path.clone(), entry);
    }
    Ok(found)
}
