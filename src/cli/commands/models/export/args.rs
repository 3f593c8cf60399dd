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
  visage models export live --format onnx  write age-N.onnx for version N
  visage models export live --format onnx --input uint8 --output age.onnx
  visage models export 3 --format pth --output age.pth

Formats:
  onnx         ages in years, in onnxruntime, OpenVINO and others
  torchscript  a module, for torch.jit.load; deprecated by PyTorch
  pth          a state dict for torchvision.models.resnet18(num_classes=1)
  safetensors  the stored tensors, for safetensors.torch.load_file

The command prints Python code that prepares an image and predicts its age with
the file.";

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
    /// Input of an ONNX file: `f32`, normalized planes `[batch, 3, S, S]`, or `uint8`, RGB pixels
    /// `[batch, S, S, 3]`, which the network normalizes [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub(super) input: Option<Input>,
    /// File to write; replaced if it exists [default: MODEL-NUMBER with the ending of the format,
    /// in the current directory, unless it exists]
    #[arg(long, short, value_name = "PATH")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
}

impl Args {
    /// The full name of the version.
    pub(super) fn version_name(&self) -> String {
        let version = self.version.as_deref().or(self.version_flag.as_deref());
        short_names::version(&self.model.model, version.unwrap_or(LIVE))
    }

    /// The file to write for a version, such as `models/age/versions/3`.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is the default, which exists.
    pub(super) fn target(&self, version: &str) -> Result<PathBuf, Error> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let model = short_names::model_of(version);
        let model = model.strip_prefix("models/").unwrap_or(model);
        let number = short_names::version_id(version);
        let default = PathBuf::from(format!("{model}-{number}.{}", self.format.ending()));
        match default.exists() {
            true => Err(Error::Usage(format!(
                "{} exists; choose another file with --output, or name this one to replace it",
                default.display()
            ))),
            false => Ok(default),
        }
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

    /// Ending of the names of files.
    fn ending(self) -> &'static str {
        match self {
            // As TorchScript's own tools name it.
            Self::Torchscript => "pt",
            Self::Onnx | Self::Pth | Self::Safetensors => self.name(),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Input {
    F32,
    Uint8,
}
