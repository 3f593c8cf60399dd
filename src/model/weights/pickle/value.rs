//! Values of a pickle: plain values, descriptions of tensors, and placeholders for all other
//! objects.

use crate::model::weights::{DType, FormatError};

/// The most values of a pickle. A state dict needs about 20 for each tensor, so this is enough for
/// 12,000 tensors; ResNet18 has 122.
pub(crate) const MAX_VALUES: usize = 250_000;
/// torch's own limit on the number of dimensions.
const MAX_DIMENSIONS: usize = 64;

/// The index of a value in [`Values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(u32);

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool,
    Int(i64),
    Text(String),
    /// A number or bytes that no tensor depends on.
    Opaque,
    Tuple(Vec<Id>),
    /// A list or a set, whose items no tensor depends on.
    List,
    Dict(Vec<(Id, Id)>),
    /// The placeholder for an object of any other class. The class is neither looked up nor
    /// executed; only the items that a subclass of `dict` would hold are kept.
    Object {
        /// The class or function that the pickle names, a [`Value::Global`].
        class: Id,
        items: Vec<(Id, Id)>,
    },
    Global(Global),
    Storage(Storage),
    Tensor(TensorView),
}

/// The Python names that a pickle mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A parameter with Python attributes.
    RebuildParameterWithState,
    /// A tensor of a subclass or with Python attributes.
    RebuildFromType,
    StorageOf(DType),
    /// Any other name: a [`Value::Text`] each.
    Unknown {
        module: Id,
        name: Id,
    },
}

/// A storage: one archive entry with elements of one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage {
    pub(crate) dtype: DType,
    /// Name of the entry in the archive's `data` directory; a [`Value::Text`].
    pub(crate) key: Id,
    /// Number of elements.
    pub(crate) elements: usize,
}

/// A tensor's view of a storage. The parts have the right types; the sizes are unchecked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorView {
    pub(crate) storage: Storage,
    /// Index of the first element in the storage.
    pub(crate) offset: usize,
    /// [`Value::Tuple`]s of sizes; see [`Values::dimensions`].
    pub(crate) shape: Id,
    pub(crate) strides: Id,
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(crate) struct Values {
    all: Vec<Value>,
    /// The only [`Value::Null`], [`Value::Bool`] and [`Value::Opaque`], shared because checkpoints
    /// carry histories of hundreds of thousands of numbers that no tensor needs.
    shared: [Option<Id>; 3],
}

impl Values {
    /// Stores a value and returns its id.
    pub(crate) fn add(&mut self, value: Value) -> Result<Id, FormatError> {
        let shared = match value {
            Value::Null => Some(0),
            Value::Bool => Some(1),
            Value::Opaque => Some(2),
            Value::Int(_)
            | Value::Text(_)
            | Value::Tuple(_)
            | Value::List
            | Value::Dict(_)
            | Value::Object { .. }
            | Value::Global(_)
            | Value::Storage(_)
            | Value::Tensor(_) => None,
        };
        if let Some(known) = shared.and_then(|place| self.shared[place]) {
            return Ok(known);
        }
        let id = Id(u32::try_from(self.all.len()).map_err(|_| too_many())?);
        if self.all.len() >= MAX_VALUES {
            return Err(too_many());
        }
        self.all.push(value);
        if let Some(place) = shared {
            self.shared[place] = Some(id);
        }
        Ok(id)
    }

    pub(crate) fn get(&self, id: Id) -> &Value {
        &self.all[id.0 as usize]
    }

    pub(crate) fn text(&self, id: Id) -> Result<&str, FormatError> {
        let Value::Text(text) = self.get(id) else {
            return Err(self.unexpected("a string", id));
        };
        Ok(text)
    }

    pub(crate) fn tuple(&self, id: Id) -> Result<&[Id], FormatError> {
        let Value::Tuple(items) = self.get(id) else {
            return Err(self.unexpected("a tuple", id));
        };
        Ok(items)
    }

    /// The entries of a dictionary, or of an object that may be one.
    pub(crate) fn items(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(items) | Value::Object { items, .. } => Some(items),
            Value::Null
            | Value::Bool
            | Value::Int(_)
            | Value::Text(_)
            | Value::Opaque
            | Value::Tuple(_)
            | Value::List
            | Value::Global(_)
            | Value::Storage(_)
            | Value::Tensor(_) => None,
        }
    }

    pub(crate) fn items_mut(&mut self, id: Id) -> Result<&mut Vec<(Id, Id)>, FormatError> {
        let wrong = self.unexpected("a dictionary", id);
        match &mut self.all[id.0 as usize] {
            Value::Dict(items) | Value::Object { items, .. } => Ok(items),
            Value::Null
            | Value::Bool
            | Value::Int(_)
            | Value::Text(_)
            | Value::Opaque
            | Value::Tuple(_)
            | Value::List
            | Value::Global(_)
            | Value::Storage(_)
            | Value::Tensor(_) => Err(wrong),
        }
    }

    /// The class of an object, or the name itself; `None` for plain values and tensors.
    pub(crate) fn class(&self, id: Id) -> Option<Id> {
        match self.get(id) {
            Value::Object { class, .. } => Some(*class),
            Value::Global(_) => Some(id),
            Value::Null
            | Value::Bool
            | Value::Int(_)
            | Value::Text(_)
            | Value::Opaque
            | Value::Tuple(_)
            | Value::List
            | Value::Dict(_)
            | Value::Storage(_)
            | Value::Tensor(_) => None,
        }
    }

    /// The module and name of an object's class, or of a name itself; `None` for plain values and
    /// tensors.
    pub(crate) fn python_name(&self, id: Id) -> Option<(&str, &str)> {
        let global = self.class(id)?;
        let Value::Global(global) = self.get(global) else {
            return None;
        };
        match global {
            Global::Unknown { module, name } => {
                Some((self.text(*module).ok()?, self.text(*name).ok()?))
            }
            Global::OrderedDict => Some(("collections", "OrderedDict")),
            Global::RebuildTensor => Some(("torch._utils", "_rebuild_tensor_v2")),
            Global::RebuildParameter => Some(("torch._utils", "_rebuild_parameter")),
            Global::RebuildParameterWithState => {
                Some(("torch._utils", "_rebuild_parameter_with_state"))
            }
            Global::RebuildFromType => Some(("torch._tensor", "_rebuild_from_type_v2")),
            Global::StorageOf(_) => None,
        }
    }

    /// An integer that is not negative.
    pub(crate) fn size(&self, id: Id) -> Result<usize, FormatError> {
        let Value::Int(number) = self.get(id) else {
            return Err(self.unexpected("a size", id));
        };
        usize::try_from(*number).map_err(|_| {
            FormatError::malformed(format!("its pickle has {number} where a size belongs"))
        })
    }

    /// Name of a storage's entry in the archive's `data` directory.
    pub(crate) fn key(&self, storage: &Storage) -> Result<&str, FormatError> {
        self.text(storage.key)
    }

    /// A tensor's shape and strides, of equal length; strides count elements.
    pub(crate) fn dimensions(
        &self,
        recipe: &TensorView,
    ) -> Result<(Vec<usize>, Vec<usize>), FormatError> {
        let shape = self.sizes(recipe.shape)?;
        let strides = self.sizes(recipe.strides)?;
        if shape.len() != strides.len() {
            return Err(FormatError::malformed(format!(
                "it has {} dimensions but {} strides",
                shape.len(),
                strides.len()
            )));
        }
        Ok((shape, strides))
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, FormatError> {
        let items = self.tuple(id)?;
        if items.len() > MAX_DIMENSIONS {
            return Err(FormatError::malformed(format!(
                "it has {} dimensions, more than {MAX_DIMENSIONS}",
                items.len()
            )));
        }
        items.iter().map(|item| self.size(*item)).collect()
    }

    /// The error that the value at `id` is not of the expected kind.
    pub(crate) fn unexpected(&self, expected: &str, id: Id) -> FormatError {
        let found = match self.get(id) {
            Value::Null => "none",
            Value::Bool => "a boolean",
            Value::Int(_) => "an integer",
            Value::Text(_) => "a string",
            Value::Opaque => "a number or bytes",
            Value::Tuple(_) => "a tuple",
            Value::List => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Object { .. } => "an object",
            Value::Global(_) => "a name",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        };
        FormatError::malformed(format!("its pickle has {found} where {expected} belongs"))
    }
}

impl Global {
    /// The object of this name, if tensors need it.
    pub(crate) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch._utils", "_rebuild_parameter_with_state") => Self::RebuildParameterWithState,
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
                Self::RebuildFromType
            }
            ("torch", "FloatStorage") => Self::StorageOf(DType::F32),
            ("torch", "HalfStorage") => Self::StorageOf(DType::F16),
            ("torch", "BFloat16Storage") => Self::StorageOf(DType::BF16),
            ("torch", "DoubleStorage") => Self::StorageOf(DType::F64),
            ("torch", "LongStorage") => Self::StorageOf(DType::I64),
            ("torch", "IntStorage") => Self::StorageOf(DType::I32),
            ("torch", "ShortStorage") => Self::StorageOf(DType::I16),
            ("torch", "CharStorage") => Self::StorageOf(DType::I8),
            ("torch", "ByteStorage") => Self::StorageOf(DType::U8),
            ("torch", "BoolStorage") => Self::StorageOf(DType::Bool),
            _ => return None,
        })
    }
}

/// The error of a pickle that is too large to be a state dict.
pub(crate) fn too_many() -> FormatError {
    FormatError::malformed(format!("its pickle builds more than {MAX_VALUES} values"))
}
