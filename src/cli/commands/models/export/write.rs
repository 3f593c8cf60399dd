//! Writes a version in each format.

use std::path::Path;

use super::args::Format;
use crate::{
    cli::error::Error,
    files,
    model::{
        self,
        checkpoint::{Manifest, read_model},
        description::Description,
        onnx::{self, Exported, InputFormat},
        resnet18::layout,
        starter, torchscript, weights,
    },
};

/// A downloaded version.
pub(super) struct Source<'a> {
    pub(super) exported: Exported<'a>,
    pub(super) manifest: &'a Manifest,
    pub(super) weights: &'a Path,
    /// SHA-256 of the weights in hex.
    pub(super) sha256: &'a str,
}

impl Source<'_> {
    /// Writes the file and returns its size in bytes. It may block for a second or two, because no
    /// other task runs meanwhile.
    pub(super) fn write(
        &self,
        format: Format,
        input: InputFormat,
        output: &Path,
    ) -> Result<u64, Error> {
        files::write_atomic_with(output, |temporary| match format {
            Format::Onnx => {
                let state = weights::read(self.weights)?;
                onnx::write(&state, &self.exported, input, temporary)
            }
            Format::Torchscript => {
                let state = read_model(self.weights, self.sha256)?;
                let Exported { label, input, .. } = self.exported;
                torchscript::write(&state, label, input.size, temporary)
            }
            Format::Pth => self.write_pth(temporary),
            Format::Safetensors if self.sha256 == starter::sha256() => self.copy(temporary),
            Format::Safetensors => self.write_safetensors(temporary),
        })?;
        Ok(fs_err::metadata(output).map_err(Error::File)?.len())
    }

    fn copy(&self, target: &Path) -> Result<(), model::Error> {
        fs_err::copy(self.weights, target)?;
        Ok(())
    }

    /// Writes the stored tensors, adding the description that files of older versions lack.
    fn write_safetensors(&self, target: &Path) -> Result<(), model::Error> {
        let description = Description::of(self.manifest).to_json()?;
        let described = weights::described(&fs_err::read(self.weights)?, description);
        let described = described.map_err(|reason| weights::Error::Format {
            path: self.weights.to_owned(),
            reason,
        });
        match described? {
            Some(described) => Ok(fs_err::write(target, described)?),
            None => self.copy(target),
        }
    }

    fn write_pth(&self, target: &Path) -> Result<(), model::Error> {
        let description = Description::of(self.manifest).to_json()?;
        let state = weights::read(self.weights)?;
        let in_torchvisions_order = layout(1);
        let entries = in_torchvisions_order.iter().filter_map(|(name, _)| {
            let tensor = state.get(name)?;
            Some((name.as_str(), tensor))
        });
        let file = weights::to_pth(entries, Some(&description));
        Ok(fs_err::write(target, file)?)
    }
}
