//! Atomic, durable file writes.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use fs_err as fs;

/// Marks the directory of uploaded datasets. The files of one come from one client, so that a
/// dataset must not name files outside its own directory.
pub(crate) const UPLOADED_MARKER: &str = ".visage";

/// Writes a file atomically and durably: to a temporary file that is synced and renamed. The file
/// is readable by its owner only.
///
/// # Errors
/// Any failure of the file system; the old file stays unchanged.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = parent_dir(path);
    let mut temporary = builder().tempfile_in(directory)?;
    write_in_chunks(&mut temporary, bytes)?;
    temporary.as_file().sync_all()?;
    drop(temporary.persist(path)?);
    sync_directory(directory)
}

/// As [`write_atomic`], for a file whose permissions follow the umask; `write` writes it at the
/// path that it receives.
///
/// # Errors
/// An error of `write`, or any failure of the file system; the old file stays unchanged.
pub(crate) fn write_atomic_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let directory = parent_dir(path);
    let mut builder = builder();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(directory)?.into_temp_path();
    write(&temporary)?;
    // `write` may have replaced the file, so it is opened again.
    fs::File::open(&temporary)?.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(sync_directory(directory)?)
}

/// A file that is written in parts under a temporary name, which is removed unless the file is
/// committed. Its permissions follow the umask.
pub(crate) struct AtomicFile {
    temporary: tempfile::NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// # Errors
    /// A directory that no file can be created in.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut builder = builder();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        Ok(AtomicFile {
            temporary: builder.tempfile_in(parent_dir(path))?,
            path: path.to_owned(),
        })
    }

    /// Gives the file its name, replacing the file that had it.
    ///
    /// # Errors
    /// Any failure of the file system; the old file stays unchanged.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        drop(self.temporary.persist(&self.path)?);
        sync_directory(parent_dir(&self.path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".visage-").suffix(".tmp");
    builder
}

/// Writes bytes in chunks. A system call that copies tens of megabytes occupies its processor until
/// it ends if the kernel is not preemptible, and delays threads that wait for it, such as
/// predictions.
///
/// # Errors
/// As the writer.
pub(crate) fn write_in_chunks(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    const CHUNK: usize = 128 << 10;
    bytes
        .chunks(CHUNK)
        .try_for_each(|chunk| out.write_all(chunk))
}

/// Returns the directory of a file.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    let directory = path.parent();
    directory
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Creates a directory, and its missing parents, that only its owner can use.
///
/// # Errors
/// A directory that cannot be created.
pub(crate) fn create_private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "failed to create the directory {}: {error}",
                directory.display()
            ),
        )),
        Ok(()) => Ok(()),
    }
}

/// Makes everything on the file system of a directory durable at once, because one call per file
/// would take minutes for 100,000 files.
///
/// # Errors
/// If the directory cannot be opened, or its file system cannot be synced.
pub(crate) fn sync_file_system(directory: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(fs::File::open(directory)?.file())?;
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::sync();
        sync_directory(directory)?;
    }
    Ok(())
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes a file, if it exists.
///
/// # Errors
/// Any other failure of the file system.
pub(crate) fn remove_if_exists(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_file(path))
}

/// Removes a directory and its content, if it exists.
///
/// # Errors
/// Any other failure of the file system.
pub(crate) fn remove_dir_if_exists(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(path))
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the bytes that are available to this process on the file system of a path.
///
/// # Errors
/// If the file system cannot be queried.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Returns true if the disk or a quota is full.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.pt");
        write_atomic_with(&path, |path| fs::write(path, b"old")).unwrap();
        let failed = write_atomic_with(&path, |path| {
            fs::write(path, b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
