//! The cache layout of the Hugging Face hub:
//!
//! ```text
//! models--OWNER--NAME/refs/main                  the commit
//! models--OWNER--NAME/snapshots/COMMIT/FILE      a link to the blob
//! models--OWNER--NAME/blobs/SHA256               the content
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use tempfile::NamedTempFile;

use super::options::{FILE, HubOptions, REPOSITORY};

/// The directory of the repository.
pub(super) fn repository(options: &HubOptions) -> PathBuf {
    let name = format!("models--{}", REPOSITORY.replace('/', "--"));
    options.cache_dir.join(name)
}

/// The cached file, if present. Its content is not verified.
pub(crate) fn cached(options: &HubOptions) -> Option<PathBuf> {
    let repository = repository(options);
    let commit = fs::read_to_string(branch(&repository)).ok()?;
    let path = snapshot(&repository, &commit).join(FILE);
    path.exists().then_some(path)
}

/// Renames the verified file to its place among the blobs and links it as the snapshot of `commit`;
/// returns the path of the link.
pub(super) fn publish(
    file: NamedTempFile,
    sha256: &str,
    repository: &Path,
    commit: &str,
) -> io::Result<PathBuf> {
    let blobs = repository.join("blobs");
    file.persist(blobs.join(sha256))
        .map_err(|error| error.error)?;
    fs::File::open(blobs)?.sync_all()?;
    let snapshot = snapshot(repository, commit);
    fs::create_dir_all(&snapshot)?;
    // A relative link survives a move of the cache.
    let target = Path::new("../../blobs").join(sha256);
    let link = snapshot.join(FILE);
    tempfile::Builder::new()
        .prefix(".visage-")
        .make_in(&snapshot, |path| fs::os::unix::fs::symlink(&target, path))?
        .into_temp_path()
        .persist(&link)
        .map_err(|error| error.error)?;
    let branch = branch(repository);
    fs::create_dir_all(repository.join("refs"))?;
    fs::write(branch, commit)?;
    Ok(link)
}

fn branch(repository: &Path) -> PathBuf {
    repository.join("refs/main")
}

fn snapshot(repository: &Path, commit: &str) -> PathBuf {
    repository.join("snapshots").join(commit)
}
