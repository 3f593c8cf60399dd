//! The full checkpoint: everything that a later process needs to go on as if it were this one.
//!
//! It is one file in the training's work directory, `trainer-….safetensors`, with the trained parameters and the optimizer's moments as the flat buffers that they
//! are, the network's other tensors by name, the moving average, and a [`TrainerRecord`] of all numbers. What is random is a function of seed, epoch and position,
//! so there is no random state in it. A thread of its own writes it while the training goes on; only the copies are made before. Its checksum is a CRC32C, which
//! costs next to nothing beside a training and tells a damaged file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use prost::Message;
use safetensors::{
    SafeTensors,
    tensor::{Dtype, Metadata, TensorInfo, TensorView},
};
use tch::{Kind, Tensor};

use crate::{
    files,
    model::{self, Error, calibration::Calibration},
    proto::worker_v1::{Resume, ResumePoint, Saved, TrainerRecord, worker_event},
};

use super::process::Reporter;

/// The records and the layout of flat buffers that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// Name of the record among the tensors.
const RECORD: &str = "record";

/// What is kept, in memory.
#[derive(Debug)]
pub struct Snapshot {
    record: TrainerRecord,
    /// On the CPU, contiguous, in f32 or i64.
    tensors: BTreeMap<String, Tensor>,
}

impl Snapshot {
    /// Takes hold of a training's tensors: those that `changes` says training changes are copied, the others are shared.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn take<'a>(
        mut record: TrainerRecord,
        tensors: impl Iterator<Item = (String, &'a Tensor)>,
        changes: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        record.format_version = FORMAT_VERSION;
        let held = tensors.map(|(name, tensor)| {
            let here = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?;
            let is_copied_already = tensor.device() != tch::Device::Cpu;
            let here = here.f_contiguous()?;
            if !changes(&name) || is_copied_already {
                return Ok((name, here));
            }
            let mut copy = here.f_empty_like()?;
            copy.f_copy_(&here)?;
            Ok((name, copy))
        });
        Ok(Snapshot {
            record,
            tensors: held.collect::<Result<_, Error>>()?,
        })
    }

    /// Writes it durably, and says what lies there.
    ///
    /// # Errors
    /// A full disk or another failure of the file system.
    fn write(self, directory: &Path, attempt: u32, number: u64) -> Result<ResumePoint, Error> {
        let record = self.record.encode_to_vec();
        let mut views = vec![(RECORD, view(Dtype::U8, vec![record.len()], &record))];
        for (name, tensor) in &self.tensors {
            let shape = tensor.size().iter().map(|side| *side as usize).collect();
            let dtype = match tensor.kind() == Kind::Int64 {
                true => Dtype::I64,
                false => Dtype::F32,
            };
            views.push((name, view(dtype, shape, bytes_of(tensor))));
        }
        let checksum = checksum(views.iter().map(|(name, view)| (*name, view.data())));
        let file = format!("trainer-{attempt}-{number}.safetensors");
        files::write_atomic_with(&directory.join(&file), |aside| {
            let mut file = fs_err::OpenOptions::new().write(true).open(aside)?;
            write_tensors(views, &mut file)
        })?;
        Ok(ResumePoint {
            epochs: self.record.epochs,
            best_epoch: self.record.best.map_or(0, |best| best.epoch),
            file,
            checksum,
        })
    }
}

/// Writes the format of safetensors: the header's length, the header, the tensors' bytes. The crate's own function hands each tensor to the operating system whole.
fn write_tensors(
    mut views: Vec<(&str, TensorView<'_>)>,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    const ALIGNMENT: usize = 8;
    // Wider numbers first, so that all are aligned.
    views.sort_by(|(name, view), (other_name, other)| {
        other.dtype().cmp(&view.dtype()).then(name.cmp(other_name))
    });
    let mut end = 0;
    let infos = views.iter().map(|(name, view)| {
        let begin = end;
        end += view.data().len();
        let info = TensorInfo {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data_offsets: (begin, end),
        };
        ((*name).to_owned(), info)
    });
    let metadata = Metadata::new(None, infos.collect()).map_err(std::io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    views
        .iter()
        .try_for_each(|(_, view)| files::write_in_pieces(out, view.data()))
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(dtype, shape, bytes).expect("the bytes are those of a tensor of this shape")
}

/// The bytes of a contiguous f32 or i64 tensor on the processor, row-major.
#[expect(
    unsafe_code,
    reason = "tch gives out no slice of a tensor, and another copy of 100 MB after each epoch would be felt"
)]
fn bytes_of(tensor: &Tensor) -> &[u8] {
    let kind = tensor.kind();
    let width = if kind == Kind::Int64 { 8 } else { 4 };
    assert!(
        tensor.is_contiguous()
            && tensor.device() == tch::Device::Cpu
            && [Kind::Int64, Kind::Float].contains(&kind),
        "a snapshot holds contiguous tensors on the processor"
    );
    // SAFETY: the tensor owns this many contiguous numbers for as long as it lives; those that training changes are the snapshot's own copies, and the others
    // never change.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), tensor.numel() * width) }
}

/// CRC32C (Castagnoli; RFC 3720, appendix B.4) over names and bytes.
fn checksum<'a>(parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
    parts.fold(0, |sum, (name, bytes)| {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, name.as_bytes()), bytes)
    })
}

/// What an earlier process left.
#[derive(Debug)]
pub struct Restored {
    /// The numbers.
    pub record: TrainerRecord,
    /// The tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The best weights, as they were exported; `None` without a best epoch.
    pub best: Option<BTreeMap<String, Tensor>>,
    /// What their intervals are made of.
    pub calibration: Option<Calibration>,
}

impl Restored {
    /// Takes the tensors whose names begin with a prefix, in the order of their names and without it.
    pub fn take(&mut self, prefix: &str) -> BTreeMap<String, Tensor> {
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

/// Reads what an earlier process left for a training on this dataset.
///
/// # Errors
/// Why it cannot be used, as a sentence: it is missing, damaged, of another program version or of other data.
pub fn read(directory: &Path, resume: &Resume, dataset_digest: &str) -> Result<Restored, String> {
    let point = resume.point.clone().unwrap_or_default();
    let path = directory.join(&point.file);
    let bytes = fs_err::read(&path).map_err(|error| error.to_string())?;
    let no_such = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = SafeTensors::deserialize(&bytes).map_err(|error| no_such(&error))?;
    let record = file.tensor(RECORD).map_err(|error| no_such(&error))?;
    let others: BTreeMap<&str, TensorView<'_>> =
        file.iter().filter(|(name, _)| *name != RECORD).collect();
    let parts = others.iter().map(|(name, view)| (*name, view.data()));
    let found = checksum(std::iter::once((RECORD, record.data())).chain(parts));
    if found != point.checksum {
        return Err(format!(
            "{} is damaged: its CRC32C is {found:08x}, not {:08x}",
            path.display(),
            point.checksum
        ));
    }
    let record = TrainerRecord::decode(record.data()).map_err(|error| no_such(&error))?;
    if record.format_version != FORMAT_VERSION {
        return Err(format!(
            "{} has the format version {}, and this program reads {FORMAT_VERSION}",
            path.display(),
            record.format_version
        ));
    }
    if record.dataset_digest != dataset_digest {
        return Err("the dataset is not what it was when the training began".to_owned());
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in &others {
        let tensor = tensor_of(view).map_err(|error| no_such(&error))?;
        tensors.insert((*name).to_owned(), tensor);
    }
    let best = match resume.best_path.as_str() {
        "" => None,
        path => Some(
            model::checkpoint::read_model(Path::new(path), &resume.best_sha256)
                .map_err(|error| error.to_string())?,
        ),
    };
    let calibration = match resume.best_manifest_path.as_str() {
        "" => None,
        path => {
            let manifest = model::checkpoint::read_manifest(Path::new(path));
            manifest.map_err(|error| error.to_string())?.calibration
        }
    };
    if best.is_none() && record.best.is_some() {
        return Err("the checkpoint of its best epoch is gone".to_owned());
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
    let (_, kind) =
        kind.ok_or_else(|| format!("tensors of {:?} are never written", view.dtype()))?;
    let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| error.to_string())
}

/// Writes full checkpoints beside the training, one at a time, and tells the server of each.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    attempt: u32,
    written: u64,
    reporter: Arc<Reporter>,
    running: Option<JoinHandle<Result<(), Failure>>>,
}

/// Why a full checkpoint did not reach the server.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The file.
    #[error(transparent)]
    Model(#[from] Error),
    /// The server is gone.
    #[error(transparent)]
    Pipe(std::io::Error),
}

impl Writer {
    /// Writes into this directory.
    pub fn new(directory: PathBuf, attempt: u32, reporter: Arc<Reporter>) -> Self {
        Writer {
            directory,
            attempt,
            written: 0,
            reporter,
            running: None,
        }
    }

    /// Begins to write; waits for the one before, of which there is thus at most one in memory beside this one.
    ///
    /// # Errors
    /// When the one before failed.
    pub fn begin(&mut self, snapshot: Snapshot) -> Result<(), Failure> {
        self.finish()?;
        self.written += 1;
        let (directory, attempt, number) = (self.directory.clone(), self.attempt, self.written);
        let reporter = Arc::clone(&self.reporter);
        self.running = Some(std::thread::spawn(move || {
            let point = snapshot.write(&directory, attempt, number)?;
            let saved = worker_event::Kind::Saved(Saved { point: Some(point) });
            reporter.send(saved).map_err(Failure::Pipe)
        }));
        Ok(())
    }

    /// Waits until what was begun is on disk and told.
    ///
    /// # Errors
    /// When it failed.
    pub fn finish(&mut self) -> Result<(), Failure> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            // The panic hook has logged it.
            Some(Err(_)) => Err(Failure::Model(Error::Io(std::io::Error::other(
                "the thread that writes full checkpoints panicked",
            )))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{v1, worker_v1::PartialEpoch};

    fn snapshot() -> Snapshot {
        let record = TrainerRecord {
            epochs: 3,
            dataset_digest: "d1".to_owned(),
            partial: Some(PartialEpoch {
                position: 7,
                squared: 0.1 + 0.2,
                ..Default::default()
            }),
            ..Default::default()
        };
        let tensors = [
            ("state/fc.bias".to_owned(), Tensor::from_slice(&[1.5f32])),
            ("state/n".to_owned(), Tensor::from(9_i64)),
            (
                "moment/1".to_owned(),
                Tensor::from_slice(&[0.25f32, f32::MIN_POSITIVE]),
            ),
        ];
        let named = tensors.iter().map(|(name, one)| (name.clone(), one));
        Snapshot::take(record, named, |name| name.starts_with("moment/")).unwrap()
    }

    #[test]
    fn what_was_written_comes_back_bit_by_bit() {
        let directory = tempfile::tempdir().unwrap();
        let point = snapshot().write(directory.path(), 2, 5).unwrap();
        assert_eq!(point.file, "trainer-2-5.safetensors");
        let resume = Resume {
            point: Some(point),
            ..Default::default()
        };
        let mut restored = read(directory.path(), &resume, "d1").unwrap();
        assert_eq!(restored.record.epochs, 3);
        let partial = restored.record.partial.unwrap();
        assert_eq!(partial.squared.to_bits(), (0.1_f64 + 0.2).to_bits());
        let state = restored.take("state/");
        assert_eq!(state.keys().collect::<Vec<_>>(), ["fc.bias", "n"]);
        assert_eq!(state["n"].int64_value(&[]), 9);
        let moment = Vec::<f32>::try_from(&restored.tensors["moment/1"]).unwrap();
        assert_eq!(moment, [0.25, f32::MIN_POSITIVE]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let point = snapshot().write(directory.path(), 1, 1).unwrap();
        let refused = |point: &ResumePoint, digest: &str| {
            let resume = Resume {
                point: Some(point.clone()),
                ..Default::default()
            };
            read(directory.path(), &resume, digest).unwrap_err()
        };
        let text = refused(&point, "d2");
        assert!(text.contains("the dataset is not what it was"), "{text}");
        let path = directory.path().join(&point.file);
        let mut bytes = fs_err::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        let text = refused(&point, "d1");
        assert!(text.contains("is damaged"), "{text}");
        fs_err::remove_file(path).unwrap();
        let text = refused(&point, "d1");
        assert!(text.contains("trainer-1-1.safetensors"), "{text}");
    }

    #[test]
    fn best_epoch_without_its_weights_is_not_gone_on_from() {
        let directory = tempfile::tempdir().unwrap();
        let mut with_best = snapshot();
        with_best.record.best = Some(v1::EpochMetrics {
            epoch: 2,
            ..Default::default()
        });
        let point = with_best.write(directory.path(), 1, 1).unwrap();
        assert_eq!(point.best_epoch, 2);
        let resume = Resume {
            point: Some(point),
            ..Default::default()
        };
        let text = read(directory.path(), &resume, "d1").unwrap_err();
        assert!(text.contains("best epoch is gone"), "{text}");
    }
}
