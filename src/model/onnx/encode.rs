//! The file: the graph with its input and output, and the metadata.

use std::path::Path;

use prost::Message as _;

use super::{
    message::{Graph, Model, OperatorSet, Property, Value, dimension::Size, element},
    network,
    nodes::Nodes,
};
use crate::{
    imaging::InputSpec,
    model::{
        Error,
        checkpoint::LabelScale,
        layout::layout,
        weights::{Mismatch, StateDict, check_shapes},
    },
};

/// The versions of the file format and of the operators are those of ONNX 1.12 (2022), so that
/// runtimes of the last years read the file; onnxruntime does since 1.12.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

const INPUT: &str = "input";
const OUTPUT: &str = "age";
/// The name of the free dimension.
const BATCH: &str = "batch";

/// Input of the exported network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputFormat {
    /// Normalized planes `[batch, 3, S, S]` in f32.
    Normalized,
    /// RGB pixels `[batch, S, S, 3]` in uint8, as Pillow and numpy have them.
    Pixels,
}

/// A model version to export.
pub(crate) struct Exported<'a> {
    /// `models/{model}/versions/{n}`.
    pub(crate) name: &'a str,
    pub(crate) number: u64,
    pub(crate) input: &'a InputSpec,
    pub(crate) label: LabelScale,
    /// Terms of the weights; `None` if they are unknown.
    pub(crate) licence: Option<&'a str>,
}

/// Writes a model whose output `age` has ages in years, `[batch]`, at least 0. Equal models have
/// equal bytes.
///
/// # Errors
/// Other names or shapes of tensors than the network's, or a failure of the file system.
pub(crate) fn write(
    state: &StateDict,
    exported: &Exported<'_>,
    format: InputFormat,
    path: &Path,
) -> Result<(), Error> {
    Ok(fs_err::write(path, encode(state, exported, format)?)?)
}

pub(super) fn encode(
    state: &StateDict,
    exported: &Exported<'_>,
    format: InputFormat,
) -> Result<Vec<u8>, Error> {
    check_shapes(state, &layout(1), &Mismatch::default())?;
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "visage".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        model_version: i64::try_from(exported.number).unwrap_or(i64::MAX),
        doc_string: format!(
            "{}: the age in years of the face on each image.",
            exported.name
        ),
        graph: Some(graph(state, exported, format)),
        opset_import: vec![OperatorSet { version: OPSET }],
        metadata_props: properties(exported, format),
    };
    Ok(model.encode_to_vec())
}

fn graph(state: &StateDict, exported: &Exported<'_>, format: InputFormat) -> Graph {
    let side = Size::Fixed(i64::from(exported.input.size));
    let batch = Size::Free(BATCH.to_owned());
    let channels = Size::Fixed(3);
    let mut nodes = Nodes::default();
    let (input, images) = match format {
        InputFormat::Normalized => {
            let shape = vec![batch.clone(), channels, side.clone(), side];
            let input = Value::tensor(INPUT, element::FLOAT, shape);
            (input, INPUT.to_owned())
        }
        InputFormat::Pixels => {
            let shape = vec![batch.clone(), side.clone(), side, channels];
            let input = Value::tensor(INPUT, element::UINT8, shape);
            let InputSpec { mean, std, .. } = exported.input;
            (input, nodes.normalized(INPUT, *mean, *std))
        }
    };
    network::append(&mut nodes, state, exported.label, &images, OUTPUT);
    Graph {
        node: nodes.nodes,
        name: "visage".to_owned(),
        initializer: nodes.initializers,
        input: vec![input],
        output: vec![Value::tensor(OUTPUT, element::FLOAT, vec![batch])],
    }
}

fn properties(exported: &Exported<'_>, format: InputFormat) -> Vec<Property> {
    let InputSpec {
        size, mean, std, ..
    } = exported.input;
    let resized = format!(
        "RGB, resized to {size} x {size} pixels with Pillow's BILINEAR filter, without preserving the aspect ratio"
    );
    let preprocessing = match format {
        InputFormat::Normalized => {
            format!("{resized}; scaled to 0..1, minus mean, divided by std; planes of f32")
        }
        InputFormat::Pixels => format!("{resized}; pixels of uint8, normalized by the graph"),
    };
    let mut properties = vec![
        ("producer", "visage".to_owned()),
        ("model_version", exported.name.to_owned()),
        ("input_size", size.to_string()),
        ("mean", listed(*mean)),
        ("std", listed(*std)),
        ("preprocessing", preprocessing),
        ("output", "age in years, at least 0".to_owned()),
    ];
    if let Some(licence) = exported.licence {
        // A standard key of ONNX.
        properties.push(("model_license", licence.to_owned()));
    }
    let property = |(key, value): (&str, String)| Property {
        key: key.to_owned(),
        value,
    };
    properties.into_iter().map(property).collect()
}

/// Comma-separated numbers with as many digits as f32 needs.
fn listed(values: [f32; 3]) -> String {
    values.map(|value| value.to_string()).join(",")
}
