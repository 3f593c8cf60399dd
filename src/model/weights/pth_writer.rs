//! Writes a state dict in the format of `torch.save`, which `torch.load(file, weights_only=True)`
//! accepts.
//!
//! As in torch's files, the pickle has protocol 2 and is an `OrderedDict` from names to calls of
//! `_rebuild_tensor_v2`, each on a storage of its own.

use std::io::{Cursor, Write as _};

use zip::{CompressionMethod, ZipWriter, result::ZipResult, write::SimpleFileOptions};

use super::{DType, TensorData, pickle::opcode, pth::DESCRIPTION_ENTRY};

/// The directory of all entries; torch accepts any name.
const DIRECTORY: &str = "archive";
/// The archive version that torch writes and requires.
const LAYOUT_VERSION: &str = "3\n";
/// torch's alignment of entries, with which tensors can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// A `.pth` file with these tensors, in this order, and a model description.
///
/// # Panics
/// If a tensor's data does not have the length of its shape and type.
pub fn to_pth<'a>(
    state: impl IntoIterator<Item = (&'a str, &'a TensorData)>,
    description: Option<&str>,
) -> Vec<u8> {
    let state: Vec<_> = state.into_iter().collect();
    archive(&state, description).expect("a zip archive in memory can be written")
}

fn archive(state: &[(&str, &TensorData)], description: Option<&str>) -> ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT)
        // A constant, so that the same tensors always yield the same file.
        .last_modified_time(zip::DateTime::default());
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("{DIRECTORY}/{name}"), options)?;
        Ok::<_, zip::result::ZipError>(zip.write_all(bytes)?)
    };
    add("data.pkl", &pickle(state))?;
    add("byteorder", b"little")?;
    for (key, (_, tensor)) in state.iter().enumerate() {
        add(&format!("data/{key}"), &tensor.data)?;
    }
    add("version", LAYOUT_VERSION.as_bytes())?;
    if let Some(description) = description {
        add(DESCRIPTION_ENTRY, description.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

fn pickle(state: &[(&str, &TensorData)]) -> Vec<u8> {
    let mut program = Program(vec![opcode::PROTO, 2]);
    program.empty_ordered_dict();
    program.op(opcode::MARK);
    for (key, (name, tensor)) in state.iter().enumerate() {
        program.text(name);
        program.tensor(&key.to_string(), tensor);
    }
    program.op(opcode::SETITEMS);
    program.op(opcode::STOP);
    program.0
}

/// A growing pickle; each method appends the instructions that push one value.
struct Program(Vec<u8>);

impl Program {
    fn op(&mut self, instruction: u8) {
        self.0.push(instruction);
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
    fn tensor(&mut self, key: &str, tensor: &TensorData) {
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.data.len(), elements * tensor.dtype.size());
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(opcode::MARK);
        self.storage(key, tensor.dtype, elements);
        self.integer(0);
        self.sizes(&tensor.shape);
        self.sizes(&contiguous_strides(&tensor.shape));
        self.op(opcode::NEWFALSE);
        self.empty_ordered_dict();
        self.op(opcode::TUPLE);
        self.op(opcode::REDUCE);
    }

    /// The persistent reference to an entry of the archive.
    fn storage(&mut self, key: &str, dtype: DType, elements: usize) {
        self.op(opcode::MARK);
        self.text("storage");
        self.global("torch", storage_class(dtype));
        self.text(key);
        self.text("cpu");
        self.integer(elements);
        self.op(opcode::TUPLE);
        self.op(opcode::BINPERSID);
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.op(opcode::EMPTY_TUPLE);
        self.op(opcode::REDUCE);
    }

    fn global(&mut self, module: &str, name: &str) {
        self.op(opcode::GLOBAL);
        self.0.extend(format!("{module}\n{name}\n").into_bytes());
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.op(opcode::MARK);
        for size in sizes {
            self.integer(*size);
        }
        self.op(opcode::TUPLE);
    }

    fn integer(&mut self, number: usize) {
        if let Ok(short) = i32::try_from(number) {
            self.op(opcode::BININT);
            self.0.extend(short.to_le_bytes());
            return;
        }
        let bytes = i64::try_from(number)
            .expect("nothing in memory has more elements")
            .to_le_bytes();
        self.op(opcode::LONG1);
        self.op(8);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("no parameter has a name of 4 GiB");
        self.op(opcode::BINUNICODE);
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes());
    }
}

/// The strides of a tensor in row-major order, counted in elements.
fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len())
        .map(|dimension| shape[dimension..].iter().product())
        .collect()
}

/// torch's class for storages of this type.
fn storage_class(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FloatStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::F64 => "DoubleStorage",
        DType::I64 => "LongStorage",
        DType::I32 => "IntStorage",
        DType::I16 => "ShortStorage",
        DType::I8 => "CharStorage",
        DType::U8 => "ByteStorage",
        DType::Bool => "BoolStorage",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::{StateDict, pth, select::Selection};

    const DTYPES: [DType; 10] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F64,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U8,
        DType::Bool,
    ];

    /// One tensor of each type, a scalar and an empty one.
    fn tensors() -> StateDict {
        let tensor = |dtype: DType, shape: &[usize]| TensorData {
            dtype,
            shape: shape.to_vec(),
            data: (0..shape.iter().product::<usize>() * dtype.size())
                .map(|index| (index % 2) as u8)
                .collect(),
        };
        let mut state: StateDict = DTYPES
            .iter()
            .map(|dtype| (format!("of.{dtype}"), tensor(*dtype, &[2, 3, 5])))
            .collect();
        state.insert("count".to_owned(), tensor(DType::I64, &[]));
        state.insert("nothing".to_owned(), tensor(DType::F32, &[0, 4]));
        state
    }

    #[test]
    fn a_written_file_is_read_back() {
        let state = tensors();
        let tensors = || state.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let found = pth::read(&to_pth(tensors(), Some("{}")), Selection::Whole).unwrap();
        assert_eq!(
            (&found.state, found.description.as_deref()),
            (&state, Some("{}"))
        );
        let found = pth::read(&to_pth(tensors(), None), Selection::Whole).unwrap();
        assert_eq!((found.state, found.description), (state.clone(), None));
    }

    #[test]
    fn the_same_tensors_make_the_same_file() {
        let state = tensors();
        let [first, second] = [(); 2].map(|()| {
            to_pth(
                state.iter().map(|(name, tensor)| (name.as_str(), tensor)),
                None,
            )
        });
        assert!(first == second);
    }

    #[test]
    fn strides_are_those_of_row_major_order() {
        assert_eq!(contiguous_strides(&[2, 3, 5]), [15, 5, 1]);
        assert!(contiguous_strides(&[]).is_empty());
    }
}
