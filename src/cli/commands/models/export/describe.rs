//! The text about an exported file: input, output, terms, and differences to the server.

use super::{args::Format, server::ServerPrecision, write::Source};
use crate::model::onnx::InputFormat;

pub(super) fn lines(
    format: Format,
    input: InputFormat,
    source: &Source<'_>,
    server: Option<&ServerPrecision>,
) -> Vec<String> {
    let mut lines = vec![
        input_line(format, input, source),
        output_line(format, source),
        difference_line(server),
    ];
    if let Some(licence) = source.exported.licence {
        lines.push(format!("Terms of the weights: {licence}."));
    }
    if format == Format::Torchscript {
        lines
            .push("PyTorch deprecates TorchScript; `--format onnx` is the replacement.".to_owned());
    }
    lines
}

fn input_line(format: Format, input: InputFormat, source: &Source<'_>) -> String {
    let spec = source.exported.input;
    let batch = match format {
        Format::Onnx => "`input`, [batch",
        Format::Torchscript | Format::Pth | Format::Safetensors => "[N",
    };
    let side = spec.size;
    let resized = format!("RGB resized to {side} x {side} (bilinear, antialiased)");
    match input {
        InputFormat::Pixels => format!("Input: {batch}, {side}, {side}, 3] in uint8: {resized}."),
        InputFormat::Normalized => format!(
            "Input: {batch}, 3, {side}, {side}] in f32: {resized}, scaled to 0..1, minus {:?}, divided by {:?}.",
            spec.mean, spec.std
        ),
    }
}

fn output_line(format: Format, source: &Source<'_>) -> String {
    let label = source.exported.label;
    match format {
        Format::Onnx => "Output: `age`, [batch], ages in years, at least 0.".to_owned(),
        Format::Torchscript => "Output: [N], ages in years, at least 0.".to_owned(),
        Format::Pth | Format::Safetensors if label.scale == 1.0 && label.offset == 0.0 => {
            "Output of the network: [N, 1], ages in years; negative ones mean 0.".to_owned()
        }
        Format::Pth | Format::Safetensors => format!(
            "Output of the network: [N, 1]; ages in years are {} times it plus {}; negative ones mean 0.",
            label.scale, label.offset
        ),
    }
}

/// The expected difference between the file, which computes in f32, and the server.
fn difference_line(server: Option<&ServerPrecision>) -> String {
    match server {
        None => "Precision: f32; a server that computes in f16 or bf16 predicts ages that differ by up to 0.1 years on average.".to_owned(),
        Some(server) if server.name == "f32" => {
            "Precision: f32, as on the server; the ages agree within 0.01 years, which is the rounding of the resizing.".to_owned()
        }
        Some(server) => format!(
            "Precision: f32; the server computes in {}, which changes the ages of its eight test faces by {:.3} years on average.",
            server.name, server.difference
        ),
    }
}
