//! Flags of `visage models export`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::{
    cli::{
        args::{model_arg::ModelArg, short_names},
        error::Error,
    },
    model::onnx::InputFormat,
    names::LIVE,
};

const EXAMPLES: &str = "\
Examples:
  visage models export live --format onnx --output age.onnx
  visage models export live --format onnx --input uint8 --output age.onnx
  visage models export live --format pth --output age.pth

Formats:
  onnx          for onnxruntime, OpenVINO and others: ages in years, without Visage and PyTorch
  torchscript   a module: torch.jit.load(FILE)(images) returns ages in years, without Visage and torchvision; deprecated by PyTorch
  pth           a state dict: torchvision.models.resnet18(num_classes=1).load_state_dict(torch.load(FILE, weights_only=True))
  safetensors   the stored tensors: safetensors.torch.load_file(FILE)

The command prints Python code that prepares an image and predicts its age with the file.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A number, an alias, or `models/MODEL/versions/VERSION` [default: live]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// The same as the argument VERSION
    #[arg(long = "version", value_name = "VERSION", conflicts_with = "version")]
    version_flag: Option<String>,
    /// Format of the file
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Format,
    /// Input of an ONNX file [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub(super) input: Option<Input>,
    /// File to write; replaced if it exists
    #[arg(long, short, value_name = "PATH")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    model: ModelArg,
}

impl Args {
    /// The full name of the version.
    pub(super) fn version_name(&self) -> String {
        let version = self.version.as_deref().or(self.version_flag.as_deref());
        short_names::version(&self.model.model, version.unwrap_or(LIVE))
    }

    /// The input of the file.
    ///
    /// # Errors
    /// [`Error::Usage`] if `--input` is given for a format that has only one input.
    pub(super) fn input_format(&self) -> Result<InputFormat, Error> {
        match (self.input, self.format) {
            (None | Some(Input::F32), _) => Ok(InputFormat::Normalized),
            (Some(Input::Uint8), Format::Onnx) => Ok(InputFormat::Pixels),
            (Some(Input::Uint8), Format::Torchscript | Format::Pth | Format::Safetensors) => {
                Err(Error::Usage(format!(
                    "--input must be f32 for --format {}, got uint8; use --format onnx",
                    self.format.name()
                )))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Onnx,
    Torchscript,
    Pth,
    Safetensors,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Torchscript => "torchscript",
            Self::Pth => "pth",
            Self::Safetensors => "safetensors",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Input {
    /// Normalized planes `[batch, 3, S, S]`
    F32,
    /// RGB pixels `[batch, S, S, 3]`; the network normalizes them
    Uint8,
}
