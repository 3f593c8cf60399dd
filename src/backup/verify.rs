//! `visage verify`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::{
    artifacts::{file_in, hash_file},
    proto::v1::{DatasetKind, DatasetState},
    store::{Reference, References, Snapshot, database_path},
};

use super::{
    Damage, Error, Progress, content,
    manifest::{self, DATABASE, Entry, FILES, Summary},
};

/// Result of a verification.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// Names of the backups; empty for a data directory.
    pub backups: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub damaged: Vec<Damage>,
}

/// Verifies all backups of a directory, or a data directory, whose server may run.
///
/// # Errors
/// A directory that is neither, a database that cannot be read, and failures of the file system.
pub(crate) async fn verify(directory: &Path, progress: Progress<'_>) -> Result<Verified, Error> {
    let directory = fs::canonicalize(directory)?;
    if manifest::backups(&directory).is_dir() {
        return Box::pin(verify_backups(&directory, progress)).await;
    }
    if database_path(&directory).is_file() {
        return Box::pin(verify_data_dir(&directory, progress)).await;
    }
    Err(Error::NothingHere(directory))
}

/// A file of the content, and what names it.
struct Named {
    bytes: u64,
    path: String,
    of: Vec<String>,
}

async fn verify_backups(root: &Path, progress: Progress<'_>) -> Result<Verified, Error> {
    let mut found = Verified {
        backups: manifest::names(root)?,
        ..Default::default()
    };
    if found.backups.is_empty() {
        return Err(Error::NothingHere(root.to_owned()));
    }
    let mut content = BTreeMap::new();
    for name in found.backups.clone() {
        let backup = manifest::backups(root).join(&name);
        let damaged = Box::pin(verify_backup(&backup, &name, &mut content)).await?;
        found.damaged.extend(damaged);
    }
    let total = content.values().map(|named| named.bytes).sum();
    for (sha256, named) in content {
        let path = content::path(root, &sha256);
        found
            .damaged
            .extend(damage(&path, &sha256, &named.path, &named.of));
        found.files += 1;
        found.bytes += named.bytes;
        progress(found.bytes, Some(total));
    }
    Ok(found)
}

/// Verifies the database and the list of a backup, and adds its files to `content`.
async fn verify_backup(
    backup: &Path,
    name: &str,
    content: &mut BTreeMap<String, Named>,
) -> Result<Vec<Damage>, Error> {
    let summary = Summary::read(backup)?;
    let mut damaged = Vec::new();
    for (file, expected) in [(DATABASE, &summary.database), (FILES, &summary.files)] {
        let path = format!("backups/{name}/{file}");
        damaged.extend(damage(&backup.join(file), &expected.sha256, &path, &[]));
    }
    if !damaged.is_empty() {
        return Ok(damaged);
    }
    for entry in manifest::read_files(backup)? {
        let Entry {
            path,
            sha256,
            bytes,
            of,
            ..
        } = entry?;
        let mut of = of;
        of.push(format!("backups/{name}"));
        content
            .entry(sha256)
            .and_modify(|named: &mut Named| named.of.append(&mut of.clone()))
            .or_insert(Named { bytes, path, of });
    }
    let mut database = Snapshot::of_file(&backup.join(DATABASE)).await?;
    let problems = database.problems().await?;
    let references = database.references().await?;
    database.close().await?;
    damaged.extend(problems.into_iter().map(|problem| Damage {
        path: format!("backups/{name}/{DATABASE}"),
        problem: format!("is damaged: {problem}"),
        of: Vec::new(),
    }));
    for Reference { sha256, owner } in references.artifacts {
        if !content.contains_key(&sha256) {
            damaged.push(Damage {
                path: sha256,
                problem: "is not in the backup".to_owned(),
                of: vec![owner, format!("backups/{name}")],
            });
        }
    }
    Ok(damaged)
}

async fn verify_data_dir(data_dir: &Path, progress: Progress<'_>) -> Result<Verified, Error> {
    let (references, problems, is_live) = read_database(data_dir).await?;
    let mut found = Verified {
        damaged: problems,
        ..Default::default()
    };
    let artifacts = data_dir.join("artifacts");
    let mut suspects = Vec::new();
    for same in references.artifacts.chunk_by(|a, b| a.sha256 == b.sha256) {
        let sha256 = &same[0].sha256;
        let of: Vec<String> = same.iter().map(|found| found.owner.clone()).collect();
        let path = file_in(&artifacts, sha256).unwrap_or_else(|| artifacts.join(sha256));
        found.bytes += fs::metadata(&path).map_or(0, |found| found.len());
        found.files += 1;
        let shown = path.strip_prefix(data_dir).unwrap_or(&path);
        if let Some(damage) = damage(&path, sha256, &shown.to_string_lossy(), &of) {
            suspects.push((sha256.clone(), damage));
        }
        progress(found.bytes, None);
    }
    suspects.extend(missing_datasets(data_dir, &references));
    if is_live && !suspects.is_empty() {
        // The server may have deleted files since its database was read.
        let (now, _, _) = read_database(data_dir).await?;
        let still_named = |name: &String| {
            let artifact = now.artifacts.iter().any(|found| found.sha256 == *name);
            artifact || now.datasets.iter().any(|found| found.dataset.name == *name)
        };
        suspects.retain(|(name, _)| still_named(name));
    }
    found
        .damaged
        .extend(suspects.into_iter().map(|(_, damage)| damage));
    Ok(found)
}

async fn read_database(data_dir: &Path) -> Result<(References, Vec<Damage>, bool), Error> {
    let scratch = tempfile::tempdir()?;
    let mut database = Snapshot::of_data_dir(data_dir, scratch.path()).await?;
    let problems = database
        .problems()
        .await?
        .into_iter()
        .map(|problem| Damage {
            path: DATABASE.to_owned(),
            problem: format!("is damaged: {problem}"),
            of: Vec::new(),
        });
    let problems = problems.collect();
    let references = database.references().await?;
    let is_live = database.is_live();
    database.close().await?;
    Ok((references, problems, is_live))
}

/// Uploaded datasets without a directory, by name.
fn missing_datasets(data_dir: &Path, references: &References) -> Vec<(String, Damage)> {
    let ready = references.datasets.iter().filter(|found| {
        found.dataset.kind() == DatasetKind::Uploaded
            && found.dataset.state() == DatasetState::Ready
    });
    let missing = ready.filter_map(|found| {
        let name = Path::new(&found.dataset.path).file_name()?;
        let path = PathBuf::from("datasets").join(name);
        (!data_dir.join(&path).is_dir()).then(|| {
            let damage = Damage {
                path: path.to_string_lossy().into_owned(),
                problem: "does not exist".to_owned(),
                of: vec![found.dataset.name.clone()],
            };
            (found.dataset.name.clone(), damage)
        })
    });
    missing.collect()
}

/// Compares a file with its digest.
fn damage(path: &Path, sha256: &str, shown: &str, of: &[String]) -> Option<Damage> {
    let problem = match hash_file(path) {
        Ok(found) if found.sha256 == sha256 => return None,
        Ok(found) => format!("has the SHA-256 {} instead of {sha256}", found.sha256),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Some(Damage {
        path: shown.to_owned(),
        problem,
        of: of.to_vec(),
    })
}
