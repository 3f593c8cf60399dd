//! Files that are there whole or not at all.

use std::{
    io::{self, Write},
    path::Path,
};

use fs_err as fs;

/// Writes a file aside, makes it durable and renames it into place; an older file of that name is replaced.
///
/// # Errors
/// Any failure of the file system, named with its path; nothing is left behind then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = parent_dir(path);
    let mut aside = tempfile::Builder::new()
        .prefix(".visage-")
        .suffix(".tmp")
        .tempfile_in(directory)?;
    write_in_pieces(&mut aside, bytes)?;
    aside.as_file().sync_all()?;
    let file = aside.persist(path)?;
    drop(file);
    sync_directory(directory)
}

/// As [`write_atomic`], for a file that others may read as the umask allows, and that `write` fills at the path it is given.
///
/// # Errors
/// What `write` fails with, or any failure of the file system; nothing is left behind then.
pub fn write_atomic_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let directory = parent_dir(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".visage-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let aside = builder.tempfile_in(directory)?.into_temp_path();
    write(&aside)?;
    // Whoever wrote it may have replaced the file that was made here.
    fs::File::open(&aside)?.sync_all()?;
    aside.persist(path).map_err(|error| error.error)?;
    Ok(sync_directory(directory)?)
}

/// Writes many bytes, few at a time: a call that copies tens of megabytes keeps its processor for all of the time where the kernel does not interrupt itself, and who waits
/// for the processor, such as a prediction, waits as long.
///
/// # Errors
/// What the writer fails with.
pub fn write_in_pieces(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    const PIECE: usize = 128 << 10;
    bytes
        .chunks(PIECE)
        .try_for_each(|piece| out.write_all(piece))
}

/// The directory that a file lies in.
pub fn parent_dir(path: &Path) -> &Path {
    let directory = path.parent();
    directory
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes a directory's entries durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// Any other failure of the file system.
pub fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the failure is a full disk or a used-up quota.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_replaces_the_older_one_and_leaves_nothing_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_fails_to_be_written_leaves_the_older_file_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.pt");
        write_atomic_with(&path, |aside| fs::write(aside, b"old")).unwrap();
        let failed = write_atomic_with(&path, |aside| {
            fs::write(aside, b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
