//! The bytes of messages against the official Python package, and the exported graph, executed with
//! libtorch, against torchvision.

use std::collections::BTreeMap;

use prost::Message as _;
use tch::{Kind, Tensor};

use super::{
    encode::{Exported, InputFormat, encode},
    message::{self, Attribute, Graph, Model, Node, OperatorSet, Property, Value, element},
};
use crate::{
    imaging::InputSpec,
    model::{
        checkpoint::LabelScale,
        resnet18::tests::{assert_close, expected, formula_images, formula_weights},
        tensors,
        weights::{self, StateDict},
    },
};

const SIDE: u32 = 96;

#[test]
fn messages_have_the_bytes_of_the_official_package() {
    // `onnx.ModelProto(...).SerializeToString(deterministic=True)` of the Python package onnx
    // 1.23.2 for the same model.
    const EXPECTED: &str = "\
        08081201701a013128033201643abb010a3d0a01780a01771201791a01632204\
        436f6e762a150a0c6b65726e656c5f736861706540014001a001072a120a0470\
        6164734000400040ac024001a001070a1f0a017912017a1a01662207466c6174\
        74656e2a0b0a04617869731800a001021201672a130801080210014201774a08\
        0000803f000020c02a11080110074201614a0801000000000000005a180a0178\
        12130a110802120d0a07120562617463680a02080362140a017a120f0a0d0801\
        12090a07120562617463684202101172060a016b120176";
    let text = str::to_owned;
    let node = |op_type, name, inputs: &[&str], output, attribute| Node {
        input: inputs.iter().map(|input| text(input)).collect(),
        output: vec![text(output)],
        name: text(name),
        op_type: text(op_type),
        attribute,
    };
    let window = vec![
        Attribute::ints("kernel_shape", &[1, 1]),
        Attribute::ints("pads", &[0, 0, 300, 1]),
    ];
    let batch = message::dimension::Size::Free(text("batch"));
    let three = message::dimension::Size::Fixed(3);
    let graph = Graph {
        node: vec![
            node("Conv", "c", &["x", "w"], "y", window),
            node("Flatten", "f", &["y"], "z", vec![Attribute::int("axis", 0)]),
        ],
        name: text("g"),
        initializer: vec![
            message::Tensor::floats("w", &[1, 2], &[1.0, -2.5]),
            message::Tensor::integers("a", &[1]),
        ],
        input: vec![Value::tensor(
            "x",
            element::UINT8,
            vec![batch.clone(), three],
        )],
        output: vec![Value::tensor("z", element::FLOAT, vec![batch])],
    };
    let model = Model {
        ir_version: 8,
        producer_name: text("p"),
        producer_version: text("1"),
        model_version: 3,
        doc_string: text("d"),
        graph: Some(graph),
        opset_import: vec![OperatorSet { version: 17 }],
        metadata_props: vec![Property {
            key: text("k"),
            value: text("v"),
        }],
    };
    let bytes = model.encode_to_vec();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, EXPECTED);
}

#[test]
fn the_graph_predicts_what_torchvision_does() {
    let model = exported(1.0, 0.0, InputFormat::Normalized);
    let ages = run(&model, formula_images(2, SIDE as usize));
    assert_eq!(ages.size(), [2]);
    assert_close(&ages, &expected()["eval_96"], 1e-4);
}

#[test]
fn ages_are_on_the_scale_of_the_labels_and_not_negative() {
    let images = || formula_images(2, SIDE as usize);
    // torchvision's outputs are 3.0327 and 3.2271.
    let ages = run(&exported(2.0, 30.0, InputFormat::Normalized), images());
    assert_close(&ages, &serde_json::json!([36.0653, 36.4541]), 1e-3);
    let ages = run(&exported(1.0, -3.1, InputFormat::Normalized), images());
    assert_close(&ages, &serde_json::json!([0.0, 0.127_064_8]), 1e-4);
    assert_eq!(ages.double_value(&[0]), 0.0);
}

#[test]
fn the_graph_normalizes_pixels() {
    let side = i64::from(SIDE);
    let levels: Vec<u8> = (0..side * side * 3)
        .map(|index| (index * 7 % 256) as u8)
        .collect();
    let pixels = Tensor::from_slice(&levels).reshape([1, side, side, 3]);
    let spec = input();
    let [mean, std] =
        [spec.mean, spec.std].map(|values| Tensor::from_slice(&values).reshape([1, 3, 1, 1]));
    let planes = pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    let normalized = (planes - mean) / std;
    let from_pixels = run(&exported(1.0, 0.0, InputFormat::Pixels), pixels);
    let from_planes = run(&exported(1.0, 0.0, InputFormat::Normalized), normalized);
    let difference = (from_pixels - from_planes).abs().double_value(&[0]);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn the_file_has_a_free_batch_dimension_and_its_metadata() {
    let bytes = encoded(1.0, 0.0, InputFormat::Pixels);
    assert!(bytes == encoded(1.0, 0.0, InputFormat::Pixels));
    let model = Model::decode(bytes.as_slice()).unwrap();
    let graph = model.graph.unwrap();
    let batch = message::dimension::Size::Free("batch".to_owned());
    let [side, three] = [i64::from(SIDE), 3].map(message::dimension::Size::Fixed);
    let shape = vec![batch.clone(), side.clone(), side, three];
    assert_eq!(graph.input, [Value::tensor("input", element::UINT8, shape)]);
    let ages = Value::tensor("age", element::FLOAT, vec![batch]);
    assert_eq!(graph.output, [ages]);
    assert_eq!(model.model_version, 7);
    let properties: BTreeMap<&str, &str> = model
        .metadata_props
        .iter()
        .map(|property| (property.key.as_str(), property.value.as_str()))
        .collect();
    assert_eq!(properties["producer"], "visage");
    assert_eq!(properties["model_version"], "models/age/versions/7");
    assert_eq!(properties["input_size"], "96");
    assert_eq!(properties["mean"], "0.485,0.456,0.406");
    assert_eq!(properties["model_license"], "research only");
}

#[test]
fn weights_of_another_network_are_refused() {
    let mut state = state();
    state.remove("fc.bias");
    let spec = input();
    let refused = encode(&state, &version(&spec, 1.0, 0.0), InputFormat::Normalized);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("fc.bias"), "{message}");
}

fn input() -> InputSpec {
    InputSpec {
        size: SIDE,
        ..InputSpec::default()
    }
}

fn version(input: &InputSpec, scale: f64, offset: f64) -> Exported<'_> {
    Exported {
        name: "models/age/versions/7",
        number: 7,
        input,
        label: LabelScale { scale, offset },
        licence: Some("research only"),
    }
}

fn state() -> StateDict {
    let bytes = tensors::serialize(&formula_weights(), "{}".to_owned()).unwrap();
    weights::parse(&bytes, "formula.safetensors".as_ref()).unwrap()
}

fn encoded(scale: f64, offset: f64, format: InputFormat) -> Vec<u8> {
    let spec = input();
    encode(&state(), &version(&spec, scale, offset), format).unwrap()
}

fn exported(scale: f64, offset: f64, format: InputFormat) -> Graph {
    let bytes = encoded(scale, offset, format);
    Model::decode(bytes.as_slice()).unwrap().graph.unwrap()
}

/// Executes the graph with libtorch and returns its output.
fn run(graph: &Graph, input: Tensor) -> Tensor {
    let mut values: BTreeMap<&str, Tensor> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), of_initializer(tensor)))
        .collect();
    values.insert(&graph.input[0].name, input);
    for node in &graph.node {
        let inputs: Vec<&Tensor> = node
            .input
            .iter()
            .map(|name| &values[name.as_str()])
            .collect();
        let output = execute(node, &inputs);
        values.insert(&node.output[0], output);
    }
    values.remove(graph.output[0].name.as_str()).unwrap()
}

fn of_initializer(tensor: &message::Tensor) -> Tensor {
    let kind = match tensor.data_type {
        element::FLOAT => Kind::Float,
        element::INT64 => Kind::Int64,
        other => panic!("no initializer has type {other}"),
    };
    Tensor::from_data_size(&tensor.raw_data, &tensor.dims, kind)
}

/// The operators by ONNX's specification of opset 17.
fn execute(node: &Node, inputs: &[&Tensor]) -> Tensor {
    let attribute = |name: &str| {
        let found = node.attribute.iter().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("{} has no {name}", node.name))
    };
    let ints = |name: &str| attribute(name).ints.clone();
    let int = |name: &str| attribute(name).i.unwrap();
    // Begin and end of each axis, which are equal.
    let padding = || ints("pads")[..2].to_vec();
    match node.op_type.as_str() {
        "Conv" => {
            assert_eq!(ints("kernel_shape"), inputs[1].size()[2..]);
            let (strides, padding) = (ints("strides"), padding());
            inputs[0].conv2d(inputs[1], Some(inputs[2]), strides, padding, [1, 1], 1)
        }
        "MaxPool" => {
            let (kernel, strides) = (ints("kernel_shape"), ints("strides"));
            inputs[0].max_pool2d(kernel, strides, padding(), [1, 1], false)
        }
        "Relu" => inputs[0].relu(),
        "Add" => inputs[0] + inputs[1],
        "Sub" => inputs[0] - inputs[1],
        "Div" => inputs[0] / inputs[1],
        "GlobalAveragePool" => inputs[0].adaptive_avg_pool2d([1, 1]),
        "Flatten" => inputs[0].flatten(int("axis"), -1),
        "Gemm" => {
            assert_eq!(int("transB"), 1);
            inputs[0].matmul(&inputs[1].tr()) + inputs[2]
        }
        "Squeeze" => inputs[0].squeeze_dim(inputs[1].int64_value(&[0])),
        "Transpose" => inputs[0].permute(ints("perm")),
        "Cast" => {
            assert_eq!(int("to"), i64::from(element::FLOAT));
            inputs[0].to_kind(Kind::Float)
        }
        other => panic!("no operator {other}"),
    }
}
