//! Paths that the user names: inputs on the server's disk, and files to write here.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{cli::error::Error, files::parent_dir};

/// The directory that relative paths are resolved against.
pub(crate) fn current_dir() -> Result<PathBuf, Error> {
    env::current_dir().map_err(Error::CurrentDir)
}

/// An absolute path, because the server has another current directory. It is canonical if the file
/// also exists on this machine.
pub(crate) fn absolute(path: PathBuf) -> Result<String, Error> {
    let full = match fs_err::canonicalize(&path) {
        Ok(canonical) => canonical,
        Err(_) => current_dir()?.join(&path).components().collect(),
    };
    full.into_os_string()
        .into_string()
        .map_err(|path| Error::Usage(format!("{} is not valid UTF-8", path.display())))
}

/// Checks `--output` before any request is sent.
///
/// # Errors
/// A path that a file cannot be written to.
pub(crate) fn check_target(target: &Path) -> Result<(), Error> {
    let refuse = |why: &str| {
        let target = target.display();
        Err(Error::Usage(format!("--output {target}: {why}")))
    };
    let directory = parent_dir(target);
    if target == Path::new("-") {
        return refuse("writing to standard output is not supported; name a file");
    }
    if target.is_dir() {
        return refuse("it is a directory; name a file in it");
    }
    if !directory.is_dir() {
        return refuse(&format!(
            "the directory {} does not exist",
            directory.display()
        ));
    }
    Ok(())
}
