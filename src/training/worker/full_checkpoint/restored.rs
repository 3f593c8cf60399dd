//! Reading of a full checkpoint.

use std::{collections::BTreeMap, path::Path};

use prost::Message;
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use tch::{Kind, Tensor};

use crate::{
    model::{
        calibration::Calibration,
        checkpoint::{read_manifest, read_model},
    },
    proto::worker_v1::{Resume, TrainerRecord},
};

use super::format::{FORMAT_VERSION, RECORD, checksum};

/// State of an earlier process.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) record: TrainerRecord,
    /// By name, on the CPU.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Exported weights of the best epoch, if there is one.
    pub(crate) best: Option<BTreeMap<String, Tensor>>,
    /// Calibration of the best epoch.
    pub(crate) calibration: Option<Calibration>,
}

impl Restored {
    /// Reads the state of a running training, without its best epoch.
    ///
    /// # Errors
    /// A sentence about unreadable bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let record = file.tensor(RECORD).map_err(|error| error.to_string())?;
        let record = TrainerRecord::decode(record.data()).map_err(|error| error.to_string())?;
        let others = file.iter().filter(|(name, _)| *name != RECORD);
        let tensors = others.map(|(name, view)| Ok((name.to_owned(), tensor_of(&view)?)));
        Ok(Restored {
            record,
            tensors: tensors.collect::<Result<_, String>>()?,
            best: None,
            calibration: None,
        })
    }

    /// Removes and returns the tensors with a name prefix, without the prefix.
    pub(crate) fn take(&mut self, prefix: &str) -> BTreeMap<String, Tensor> {
        let later = self.tensors.split_off(prefix);
        let mut found = BTreeMap::new();
        for (name, tensor) in later {
            match name.strip_prefix(prefix) {
                Some(short) => found.insert(short.to_owned(), tensor),
                None => self.tensors.insert(name, tensor),
            };
        }
        found
    }
}

/// Reads a full checkpoint of a training on this dataset with this number of shards.
///
/// # Errors
/// A sentence about a file that is missing, damaged, or of another format or dataset.
pub(crate) fn read(
    directory: &Path,
    resume: &Resume,
    (dataset_digest, shards): (&str, usize),
) -> Result<Restored, String> {
    let point = resume.point.clone().unwrap_or_default();
    let path = directory.join(&point.file);
    let bytes = fs_err::read(&path).map_err(|error| error.to_string())?;
    let unreadable =
        |error: &dyn std::fmt::Display| format!("failed to read {}: {error}", path.display());
    let file = SafeTensors::deserialize(&bytes).map_err(|error| unreadable(&error))?;
    let record = file.tensor(RECORD).map_err(|error| unreadable(&error))?;
    let others: BTreeMap<&str, TensorView<'_>> =
        file.iter().filter(|(name, _)| *name != RECORD).collect();
    let parts = others.iter().map(|(name, view)| (*name, view.data()));
    let found = checksum(std::iter::once((RECORD, record.data())).chain(parts));
    if found != point.checksum {
        return Err(format!(
            "{} is damaged: its CRC32C must be {:08x}, got {found:08x}",
            path.display(),
            point.checksum
        ));
    }
    let record = TrainerRecord::decode(record.data()).map_err(|error| unreadable(&error))?;
    if record.format_version != FORMAT_VERSION {
        return Err(format!(
            "the format version of {} must be {FORMAT_VERSION}, got {}",
            path.display(),
            record.format_version
        ));
    }
    if record.dataset_digest != dataset_digest {
        return Err("the dataset has changed since the training started".to_owned());
    }
    // Older programs did not record the shards.
    let recorded = record.shards.max(1) as usize;
    if recorded != shards {
        return Err(format!(
            "the number of shards of {} must be {shards}, got {recorded}",
            path.display()
        ));
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in &others {
        let tensor = tensor_of(view).map_err(|error| unreadable(&error))?;
        tensors.insert((*name).to_owned(), tensor);
    }
    let best = match resume.best_path.as_str() {
        "" => None,
        path => Some(
            read_model(Path::new(path), &resume.best_sha256).map_err(|error| error.to_string())?,
        ),
    };
    let calibration = match resume.best_manifest_path.as_str() {
        "" => None,
        path => {
            let manifest = read_manifest(Path::new(path));
            manifest.map_err(|error| error.to_string())?.calibration
        }
    };
    if best.is_none() && record.best.is_some() {
        return Err("the checkpoint of its best epoch is missing".to_owned());
    }
    Ok(Restored {
        record,
        tensors,
        best,
        calibration,
    })
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, String> {
    let kinds = [(Dtype::I64, Kind::Int64), (Dtype::F32, Kind::Float)];
    let kind = kinds.into_iter().find(|(dtype, _)| *dtype == view.dtype());
    let (_, kind) = kind.ok_or_else(|| {
        format!(
            "a tensor must have the type F32 or I64, got {:?}",
            view.dtype()
        )
    })?;
    let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| error.to_string())
}
