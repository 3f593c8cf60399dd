//! Python code that prepares an image as the server does and predicts its age with a file.

use std::path::Path;

use super::args::Format;
use crate::{
    imaging::InputSpec,
    model::{checkpoint::LabelScale, onnx::InputFormat},
};

pub(super) struct Snippet<'a> {
    pub(super) format: Format,
    pub(super) input: InputFormat,
    pub(super) spec: &'a InputSpec,
    pub(super) label: LabelScale,
    pub(super) path: &'a Path,
}

impl Snippet<'_> {
    pub(super) fn text(&self) -> String {
        format!("{}\n{}\n{}", self.imports(), self.prepare(), self.predict())
    }

    fn imports(&self) -> String {
        let packages: &[&str] = match self.format {
            Format::Onnx => &["numpy", "onnxruntime"],
            Format::Torchscript => &["numpy", "torch"],
            Format::Pth => &["numpy", "torch", "torchvision"],
            Format::Safetensors => &["numpy", "safetensors.torch", "torch", "torchvision"],
        };
        let mut lines: Vec<String> = packages
            .iter()
            .map(|name| format!("import {name}"))
            .collect();
        lines.push("from PIL import Image, ImageOps\n".to_owned());
        lines.join("\n")
    }

    /// The preprocessing of [`crate::imaging`]; Pillow's filter is antialiased.
    fn prepare(&self) -> String {
        let InputSpec {
            size, mean, std, ..
        } = self.spec;
        let pixels = match self.input {
            InputFormat::Pixels => "    return numpy.asarray(image)\n".to_owned(),
            InputFormat::Normalized => format!(
                "    pixels = numpy.asarray(image, dtype=numpy.float32) / 255
    pixels = (pixels - numpy.float32({mean:?})) / numpy.float32({std:?})
    return pixels.transpose(2, 0, 1)
"
            ),
        };
        format!(
            "def prepare(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert(\"RGB\")
    image = image.resize(({size}, {size}), Image.Resampling.BILINEAR)
{pixels}
images = numpy.stack([prepare(\"me.jpg\")])"
        )
    }

    fn predict(&self) -> String {
        // The escapes of JSON are valid in Python.
        let path = serde_json::Value::from(self.path.display().to_string());
        let network = "network = torchvision.models.resnet18(num_classes=1)";
        match self.format {
            Format::Onnx => format!(
                "session = onnxruntime.InferenceSession({path}, providers=[\"CPUExecutionProvider\"])
print(session.run([\"age\"], {{\"input\": images}})[0])"
            ),
            Format::Torchscript => format!(
                "network = torch.jit.load({path})
with torch.no_grad():
    print(network(torch.from_numpy(images)))"
            ),
            Format::Pth => format!(
                "{network}
network.load_state_dict(torch.load({path}, weights_only=True))
{}",
                self.run_network()
            ),
            Format::Safetensors => format!(
                "{network}
network.load_state_dict(safetensors.torch.load_file({path}))
{}",
                self.run_network()
            ),
        }
    }

    fn run_network(&self) -> String {
        let LabelScale { scale, offset } = self.label;
        let years = match (scale, offset) {
            (1.0, 0.0) => "ages".to_owned(),
            _ => format!("(ages * {scale:?} + {offset:?})"),
        };
        format!(
            "network.eval()
with torch.no_grad():
    ages = network(torch.from_numpy(images))[:, 0]
print({years}.clamp(min=0))"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format, input: InputFormat, scale: f64) -> String {
        let snippet = Snippet {
            format,
            input,
            spec: &InputSpec::default(),
            label: LabelScale { scale, offset: 0.0 },
            path: Path::new("a \"quoted\" name"),
        };
        snippet.text()
    }

    // That the code runs and predicts the server's ages is tested in `tests/python/test_export.py`.
    #[test]
    fn code_has_the_values_of_the_version() {
        let normalized = text(Format::Onnx, InputFormat::Normalized, 1.0);
        for part in [
            "resize((224, 224), Image.Resampling.BILINEAR)",
            "pixels - numpy.float32([0.485, 0.456, 0.406])",
            "InferenceSession(\"a \\\"quoted\\\" name\", ",
        ] {
            assert!(normalized.contains(part), "{normalized}");
        }
        let pixels = text(Format::Onnx, InputFormat::Pixels, 1.0);
        assert!(!pixels.contains("0.485"), "{pixels}");
        let scaled = text(Format::Pth, InputFormat::Normalized, 20.5);
        assert!(scaled.contains("(ages * 20.5 + 0.0).clamp"), "{scaled}");
    }
}
