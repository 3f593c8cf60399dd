//! Reads and writes the files of a checkpoint.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::manifest::{MANIFEST_FILE, MODEL_FILE, Manifest};
use crate::{
    files,
    model::{
        Error,
        description::Description,
        tensors,
        training_images::{TRAINING_IMAGES_FILE, TrainingImages},
        weights,
    },
};

/// A written file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenFile {
    pub name: &'static str,
    pub path: PathBuf,
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// Writes all files durably, creates the directory if necessary, and sets the manifest's checksums.
/// Without a record of the training images there are two files.
///
/// # Errors
/// A failure of the file system or of libtorch.
pub(crate) fn write(
    directory: &Path,
    state: &BTreeMap<String, Tensor>,
    mut manifest: Manifest,
    images: Option<&TrainingImages>,
) -> Result<Vec<WrittenFile>, Error> {
    fs_err::create_dir_all(directory)?;
    let images =
        images.map(|images| write_file(directory, TRAINING_IMAGES_FILE, &images.to_bytes()));
    let images = images.transpose()?;
    let checksum = |file: &WrittenFile| (file.name.to_owned(), file.sha256.clone());
    manifest.sha256 = images.iter().map(checksum).collect();
    // With the checksum of the record, so that one file is enough to continue from the model.
    let description = Description::of(&manifest).to_json()?;
    let model = write_file(
        directory,
        MODEL_FILE,
        &tensors::serialize(state, description)?,
    )?;
    manifest.sha256.extend([checksum(&model)]);
    let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::other)?;
    let manifest = write_file(directory, MANIFEST_FILE, &text)?;
    Ok([model, manifest].into_iter().chain(images).collect())
}

/// Reads the tensors to the CPU in f32 and verifies checksum, names and shapes.
///
/// # Errors
/// The file is missing, damaged, or of another network.
pub(crate) fn read_model(path: &Path, sha256: &str) -> Result<BTreeMap<String, Tensor>, Error> {
    let bytes = fs_err::read(path)?;
    let found = format!("{:x}", Sha256::digest(&bytes));
    if found != sha256 {
        return Err(Error::Checksum {
            path: path.display().to_string(),
            expected: sha256.to_owned(),
            found,
        });
    }
    tensors::exact(&weights::parse(&bytes, path)?)
}

fn write_file(directory: &Path, name: &'static str, bytes: &[u8]) -> Result<WrittenFile, Error> {
    let path = directory.join(name);
    files::write_atomic(&path, bytes)?;
    Ok(WrittenFile {
        name,
        path,
        size: bytes.len() as u64,
        sha256: format!("{:x}", Sha256::digest(bytes)),
    })
}
