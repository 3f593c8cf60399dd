//! Replacements for Python's calls and objects.

use super::{
    machine::Machine,
    value::{Global, Id, Storage, TensorView, Value},
};
use crate::model::weights::FormatError;

/// The result of a call.
enum Built {
    New(Value),
    /// One of the arguments.
    Same(Id),
}

impl Machine<'_> {
    /// Calls one of the allowed callables, which only rearrange values; the result of any other is
    /// a placeholder.
    pub(super) fn reduce(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let global = match self.values.get(callable) {
            Value::Global(global) => *global,
            Value::Object { .. } => return self.instance_of(callable, arguments),
            Value::Null
            | Value::Bool
            | Value::Int(_)
            | Value::Text(_)
            | Value::Opaque
            | Value::Tuple(_)
            | Value::List
            | Value::Dict(_)
            | Value::Storage(_)
            | Value::Tensor(_) => {
                return Err(FormatError::malformed(
                    "its pickle calls something that is not callable",
                ));
            }
        };
        match self.call(global, callable, self.values.tuple(arguments)?)? {
            Built::New(value) => self.push(value),
            Built::Same(id) => self.push_id(id),
        }
    }

    fn call(&self, global: Global, callable: Id, arguments: &[Id]) -> Result<Built, FormatError> {
        let placeholder = Built::New(Value::Object {
            class: callable,
            items: Vec::new(),
        });
        Ok(match (global, arguments) {
            (Global::OrderedDict, []) => Built::New(Value::Dict(Vec::new())),
            (Global::OrderedDict, _) => {
                return Err(FormatError::Unsupported(format!(
                    "{global:?} with {} arguments",
                    arguments.len()
                )));
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, _requires_grad, _hooks]) => {
                // The storage has an element type that the network never has.
                if matches!(self.values.get(*storage), Value::Object { .. }) {
                    return Ok(placeholder);
                }
                let view = self.tensor_view(*storage, *offset, *shape, *strides)?;
                Built::New(Value::Tensor(view))
            }
            (Global::RebuildParameter, [data, _requires_grad, _hooks])
            | (Global::RebuildParameterWithState, [data, _requires_grad, _hooks, _]) => {
                let data = *data;
                if !matches!(
                    self.values.get(data),
                    Value::Tensor(_) | Value::Object { .. }
                ) {
                    return Err(FormatError::malformed(
                        "a parameter in its pickle has no tensor",
                    ));
                }
                Built::Same(data)
            }
            (Global::RebuildFromType, [function, _class, inner, _attributes]) => {
                let Value::Global(rebuild @ (Global::RebuildTensor | Global::RebuildParameter)) =
                    self.values.get(*function)
                else {
                    return Ok(placeholder);
                };
                self.call(*rebuild, *function, self.values.tuple(*inner)?)?
            }
            (Global::StorageOf(_), _) => {
                return Err(FormatError::malformed("its pickle calls a storage type"));
            }
            (
                Global::RebuildTensor
                | Global::RebuildParameter
                | Global::RebuildParameterWithState
                | Global::RebuildFromType
                | Global::Unknown { .. },
                _,
            ) => placeholder,
        })
    }

    /// Replaces Python's `cls.__new__(cls, *arguments)`, with the class on top of the stack.
    pub(super) fn instantiate(&mut self, arguments: Id) -> Result<(), FormatError> {
        let class = self.pop()?;
        self.instance_of(class, arguments)
    }

    /// Pushes the placeholder for an object of this class, or for the result of a call of this
    /// object.
    fn instance_of(&mut self, class: Id, arguments: Id) -> Result<(), FormatError> {
        self.values.tuple(arguments)?;
        let Some(class) = self.values.class(class) else {
            return Err(self.values.unexpected("a class", class));
        };
        self.push(Value::Object {
            class,
            items: Vec::new(),
        })
    }

    /// The storage of a persistent reference `("storage", type, key, location, elements)`; a
    /// placeholder for an element type that the network never has.
    pub(super) fn storage(&self, reference: Id) -> Result<Value, FormatError> {
        let [kind, class, key, _location, elements] = self.values.tuple(reference)? else {
            return Err(FormatError::malformed(
                "a storage reference does not have five parts",
            ));
        };
        if self.values.text(*kind)? != "storage" {
            return Err(FormatError::malformed(
                "a persistent reference is not to a storage",
            ));
        }
        let Value::Global(named) = self.values.get(*class) else {
            return Err(FormatError::malformed(
                "a storage reference has no storage type",
            ));
        };
        let Global::StorageOf(dtype) = named else {
            return Ok(Value::Object {
                class: *class,
                items: Vec::new(),
            });
        };
        self.values.text(*key)?;
        Ok(Value::Storage(Storage {
            dtype: *dtype,
            key: *key,
            elements: self.values.size(*elements)?,
        }))
    }

    fn tensor_view(
        &self,
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    ) -> Result<TensorView, FormatError> {
        let Value::Storage(storage) = self.values.get(storage) else {
            return Err(FormatError::malformed(
                "a tensor in its pickle has no storage",
            ));
        };
        Ok(TensorView {
            storage: *storage,
            offset: self.values.size(offset)?,
            shape,
            strides,
        })
    }
}
