//! The protobuf messages of ONNX, as far as a file of this module has them.
//!
//! Field numbers and types are those of `onnx/onnx.proto` in the ONNX repository (IR version 8).
//! Repeated integers are unpacked and optional fields are present exactly where the official Python
//! package writes them, so that equal models have equal bytes.

/// Element types of `TensorProto.DataType`.
pub(super) mod element {
    pub(in crate::model::onnx) const FLOAT: i32 = 1;
    pub(in crate::model::onnx) const UINT8: i32 = 2;
    pub(in crate::model::onnx) const INT64: i32 = 7;
}

/// Values of `AttributeProto.AttributeType`.
mod attribute_type {
    pub(super) const INT: i32 = 2;
    pub(super) const INTS: i32 = 7;
}

/// `ModelProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(int64, tag = "5")]
    pub(super) model_version: i64,
    #[prost(string, tag = "6")]
    pub(super) doc_string: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<Property>,
}

/// `OperatorSetIdProto` of the default domain.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorSet {
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Property {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<Value>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(super) r#type: i32,
}

impl Attribute {
    pub(super) fn int(name: &str, value: i64) -> Self {
        Attribute {
            name: name.to_owned(),
            i: Some(value),
            ints: Vec::new(),
            r#type: attribute_type::INT,
        }
    }

    pub(super) fn ints(name: &str, values: &[i64]) -> Self {
        Attribute {
            name: name.to_owned(),
            i: None,
            ints: values.to_vec(),
            r#type: attribute_type::INTS,
        }
    }
}

/// `TensorProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    /// One of [`element`].
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    /// The elements in row-major order, little endian.
    #[prost(bytes = "vec", tag = "9")]
    pub(super) raw_data: Vec<u8>,
}

impl Tensor {
    pub(super) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Self {
        Tensor {
            dims: dims.to_vec(),
            data_type: element::FLOAT,
            name: name.to_owned(),
            raw_data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    pub(super) fn integers(name: &str, values: &[i64]) -> Self {
        Tensor {
            dims: vec![values.len() as i64],
            data_type: element::INT64,
            name: name.to_owned(),
            raw_data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }
}

/// `ValueInfoProto` of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<Type>,
}

impl Value {
    pub(super) fn tensor(name: &str, elem_type: i32, shape: Vec<dimension::Size>) -> Self {
        let dim = shape
            .into_iter()
            .map(|size| Dimension { size: Some(size) })
            .collect();
        let tensor_type = TensorType {
            elem_type,
            shape: Some(Shape { dim }),
        };
        Value {
            name: name.to_owned(),
            r#type: Some(Type {
                tensor_type: Some(tensor_type),
            }),
        }
    }
}

/// `TypeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorType {
    /// One of [`element`].
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dimension {
    #[prost(oneof = "dimension::Size", tags = "1, 2")]
    pub(super) size: Option<dimension::Size>,
}

pub(super) mod dimension {
    /// A length, or the name of one that each run chooses.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(in crate::model::onnx) enum Size {
        #[prost(int64, tag = "1")]
        Fixed(i64),
        #[prost(string, tag = "2")]
        Free(String),
    }
}
