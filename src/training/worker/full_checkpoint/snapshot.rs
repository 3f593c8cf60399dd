//! Capturing and writing of a full checkpoint.

use std::{collections::BTreeMap, io, path::Path};

use prost::Message;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use tch::{Kind, Tensor};

use crate::{
    files,
    model::Error,
    proto::worker_v1::{ResumePoint, TrainerRecord},
};

use super::format::{FORMAT_VERSION, RECORD, checksum};

/// State of a training in memory.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) record: TrainerRecord,
    /// On the CPU, contiguous, in f32 or i64.
    tensors: BTreeMap<String, Tensor>,
}

impl Snapshot {
    /// Captures the tensors of a training: copies those that training changes, by `is_changed`, and
    /// shares the others.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn take<'a>(
        mut record: TrainerRecord,
        tensors: impl Iterator<Item = (String, &'a Tensor)>,
        is_changed: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        record.format_version = FORMAT_VERSION;
        let captured = tensors.map(|(name, tensor)| {
            let local = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?;
            let is_copied = tensor.device() != tch::Device::Cpu;
            let local = local.f_contiguous()?;
            if !is_changed(&name) || is_copied {
                return Ok((name, local));
            }
            let mut copy = local.f_empty_like()?;
            copy.f_copy_(&local)?;
            Ok((name, copy))
        });
        Ok(Snapshot {
            record,
            tensors: captured.collect::<Result<_, Error>>()?,
        })
    }

    /// Writes the file durably.
    ///
    /// # Errors
    /// A full disk or another failure of the file system.
    pub(super) fn write(
        self,
        directory: &Path,
        attempt: u32,
        number: u64,
    ) -> Result<ResumePoint, Error> {
        let record = self.record.encode_to_vec();
        let views = self.views(&record);
        let checksum = checksum(views.iter().map(|(name, view)| (*name, view.data())));
        let file = format!("trainer-{attempt}-{number}.safetensors");
        files::write_atomic_with(&directory.join(&file), |temporary| {
            let mut file = fs_err::OpenOptions::new().write(true).open(temporary)?;
            write_tensors(views, &mut file)
        })?;
        Ok(ResumePoint {
            epochs: self.record.epochs,
            best_epoch: self.record.best.map_or(0, |best| best.epoch),
            file,
            checksum,
        })
    }

    /// Returns the content of the file.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let record = self.record.encode_to_vec();
        let mut bytes = Vec::new();
        write_tensors(self.views(&record), &mut bytes)?;
        Ok(bytes)
    }

    /// Returns the record and the tensors as those of a file.
    fn views<'a>(&'a self, record: &'a [u8]) -> Vec<(&'a str, TensorView<'a>)> {
        let mut views = vec![(RECORD, view(Dtype::U8, vec![record.len()], record))];
        for (name, tensor) in &self.tensors {
            let shape = tensor.size().iter().map(|side| *side as usize).collect();
            let dtype = if tensor.kind() == Kind::Int64 {
                Dtype::I64
            } else {
                Dtype::F32
            };
            views.push((name, view(dtype, shape, bytes_of(tensor))));
        }
        views
    }
}

/// Writes the safetensors format: length of the header, header, bytes of the tensors. Unlike the
/// function of the crate it writes each tensor in pieces.
fn write_tensors(
    mut views: Vec<(&str, TensorView<'_>)>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    const ALIGNMENT: usize = 8;
    // Wider numbers first, so that all tensors are aligned.
    views.sort_by(|(name, view), (other_name, other)| {
        other.dtype().cmp(&view.dtype()).then(name.cmp(other_name))
    });
    let mut end = 0;
    let infos = views.iter().map(|(name, view)| {
        let start = end;
        end += view.data().len();
        let info = TensorInfo {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data_offsets: (start, end),
        };
        ((*name).to_owned(), info)
    });
    let metadata = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    views
        .iter()
        .try_for_each(|(_, view)| files::write_in_chunks(out, view.data()))
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(dtype, shape, bytes).expect("the bytes belong to a tensor of this shape")
}

/// Returns the bytes of a contiguous f32 or i64 tensor on the CPU, row-major.
#[expect(
    unsafe_code,
    reason = "tch exposes no slice of a tensor, and another copy of 100 MB after each epoch is slow"
)]
fn bytes_of(tensor: &Tensor) -> &[u8] {
    let kind = tensor.kind();
    let width = if kind == Kind::Int64 { 8 } else { 4 };
    assert!(
        tensor.is_contiguous()
            && tensor.device() == tch::Device::Cpu
            && [Kind::Int64, Kind::Float].contains(&kind),
        "a snapshot holds contiguous f32 or i64 tensors on the CPU"
    );
    // An empty tensor may have no address.
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: the tensor owns this many contiguous numbers while it lives. Tensors that training
    // changes are copies of the snapshot, and the others never change.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), tensor.numel() * width) }
}
