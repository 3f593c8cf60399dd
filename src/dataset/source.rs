//! Source of a dataset: a directory of images or a manifest.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{ColumnNames, Error, Options, Roots, Source, candidate::Listing, directory, manifest};

/// Checks a dataset without reading rows or images: its path, the options that its kind excludes,
/// and the header of a manifest.
///
/// Reads at most one megabyte, but blocks, so it does not belong on an async thread.
///
/// # Errors
/// As [`super::load`].
pub(crate) fn check_source(path: &Path, roots: &Roots, options: &Options) -> Result<(), Error> {
    let path = roots.resolve(&path.to_string_lossy())?;
    match locate(&path, &roots.within(&path), options)? {
        Location::Directory => Ok(()),
        Location::Manifest { file, .. } => manifest::check_header(&file, options),
    }
}

/// Lists the images of a dataset at a resolved path.
pub(super) fn list(
    path: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Source, Listing), Error> {
    match locate(path, roots, options)? {
        Location::Directory => {
            let listing = directory::list(path, roots, options, cancelled)?;
            Ok((Source::Directory, listing))
        }
        Location::Manifest { file, directory } => {
            let listing = manifest::list(&file, &directory, roots, options, cancelled)?;
            Ok((Source::Manifest, listing))
        }
    }
}

enum Location {
    /// The path itself, whose file names hold the ages.
    Directory,
    /// A manifest, whose paths are relative to the directory.
    Manifest { file: PathBuf, directory: PathBuf },
}

fn locate(path: &Path, roots: &Roots, options: &Options) -> Result<Location, Error> {
    let location = find(path, roots)?;
    match &location {
        Location::Directory if options.columns != ColumnNames::default() => {
            Err(Error::ColumnsOfDirectory {
                path: path.to_path_buf(),
            })
        }
        Location::Manifest { file, .. } if options.age_pattern.is_some() => {
            Err(Error::PatternOfManifest { path: file.clone() })
        }
        Location::Directory | Location::Manifest { .. } => Ok(location),
    }
}

fn find(path: &Path, roots: &Roots) -> Result<Location, Error> {
    if fs::metadata(path)?.is_dir() {
        let [csv, tsv] = ["manifest.csv", "manifest.tsv"].map(|name| path.join(name));
        let manifest = match (csv.is_file(), tsv.is_file()) {
            (false, false) => return Ok(Location::Directory),
            (true, true) => {
                let path = path.to_path_buf();
                return Err(Error::AmbiguousManifest { path });
            }
            (true, false) => csv,
            (false, true) => tsv,
        };
        // The manifest may be a link, which must not lead out of the roots either.
        return Ok(Location::Manifest {
            file: roots.resolve(&manifest.to_string_lossy())?,
            directory: path.to_path_buf(),
        });
    }
    let is_manifest = path.is_file()
        && path.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("csv") || extension.eq_ignore_ascii_case("tsv")
        });
    let path = path.to_path_buf();
    match path.parent().filter(|_| is_manifest) {
        Some(directory) => Ok(Location::Manifest {
            directory: directory.to_path_buf(),
            file: path,
        }),
        None => Err(Error::NotADataset { path }),
    }
}
