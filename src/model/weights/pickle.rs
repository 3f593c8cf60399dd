//! A restricted unpickler: a machine that can build plain values and descriptions of tensors, and nothing else.
//!
//! A pickle is a program. The ordinary unpickler imports and calls whatever that program names; this one knows only the
//! names that tensors need ([`Global::named`]) and runs nothing. An object of any other name becomes a placeholder
//! ([`Value::Object`]), so that a checkpoint is readable whatever lies beside its tensors.
//!
//! Values live in one vector and refer to each other by index ([`Id`]). So a value that contains itself, thousands of
//! nested lists or a long string that is fetched from the memo thousands of times cost no recursion and no copies,
//! neither here nor when the values are dropped: memory grows by a few bytes for each byte of the pickle.

use std::collections::BTreeMap;

use super::FormatError;
use super::opcode;
use super::value::{Global, Id, MAX_VALUES, Recipe, Storage, Value, Values, too_many};

/// The most instructions that are run: a few seconds. A checkpoint with its optimizer's state has about 100,000.
const MAX_INSTRUCTIONS: usize = 50_000_000;

/// Whether a file begins as a pickle of protocol 2 or later does.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [opcode::PROTO, 2..=5, ..])
}

/// Runs a pickle of protocol 2 to 4; returns all values and which one it ends with.
pub(super) fn unpickle(program: &[u8]) -> Result<(Values, Id), FormatError> {
    let mut machine = Machine {
        program,
        at: 0,
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        started: 0,
    };
    let mut left = MAX_INSTRUCTIONS;
    while machine.step()? {
        left = left.checked_sub(1).ok_or_else(|| {
            FormatError::malformed(format!(
                "its pickle has more than {MAX_INSTRUCTIONS} instructions"
            ))
        })?;
    }
    let root = machine.pop()?;
    Ok((machine.values, root))
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    values: Values,
    stack: Vec<Id>,
    /// Heights of the stack at which a mark was set.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    /// Where the running instruction starts.
    started: usize,
}

/// The result of a call.
enum Built {
    New(Value),
    /// One of the arguments.
    Same(Id),
}

impl<'a> Machine<'a> {
    /// Runs one instruction; false after the last.
    fn step(&mut self) -> Result<bool, FormatError> {
        self.started = self.at;
        match self.byte()? {
            opcode::PROTO => {
                let version = self.byte()?;
                if !(2..=4).contains(&version) {
                    return Err(FormatError::Unsupported(format!(
                        "pickle protocol {version}"
                    )));
                }
            }
            // Frames only help a reader to buffer.
            opcode::FRAME => drop(self.unsigned(8)?),
            opcode::STOP => return Ok(false),

            opcode::NONE => self.push(Value::Null)?,
            opcode::NEWTRUE | opcode::NEWFALSE => self.push(Value::Bool)?,
            opcode::BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))?;
            }
            opcode::BININT1 => self.push_unsigned(1)?,
            opcode::BININT2 => self.push_unsigned(2)?,
            opcode::LONG1 => self.long(1)?,
            opcode::LONG4 => self.long(4)?,
            opcode::BINFLOAT => {
                self.take(8)?;
                self.push(Value::Opaque)?;
            }
            opcode::SHORT_BINUNICODE => self.text(1)?,
            opcode::BINUNICODE => self.text(4)?,
            opcode::BINUNICODE8 => self.text(8)?,
            opcode::SHORT_BINBYTES => self.opaque_bytes(1)?,
            opcode::BINBYTES => self.opaque_bytes(4)?,
            opcode::BINBYTES8 => self.opaque_bytes(8)?,

            opcode::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new()))?,
            opcode::TUPLE1 => self.tuple(1)?,
            opcode::TUPLE2 => self.tuple(2)?,
            opcode::TUPLE3 => self.tuple(3)?,
            opcode::MARK => self.mark()?,
            opcode::TUPLE => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            opcode::POP => self.discard()?,
            opcode::POP_MARK => drop(self.pop_to_mark()?),
            opcode::DUP => {
                let id = self.top()?;
                self.push_id(id)?;
            }
            // No tensor depends on the items of a list or a set, so they are dropped.
            opcode::EMPTY_LIST | opcode::EMPTY_SET => self.push(Value::List)?,
            opcode::FROZENSET => {
                self.pop_to_mark()?;
                self.push(Value::List)?;
            }
            opcode::APPEND => {
                self.pop()?;
                self.expect_list()?;
            }
            opcode::APPENDS | opcode::ADDITEMS => {
                self.pop_to_mark()?;
                self.expect_list()?;
            }
            opcode::EMPTY_DICT => self.push(Value::Dict(Vec::new()))?,
            opcode::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.items_on_top()?.push((key, value));
            }
            opcode::SETITEMS => {
                let items = self.pop_to_mark()?;
                let (pairs, odd) = items.as_chunks::<2>();
                if !odd.is_empty() {
                    return Err(FormatError::malformed(
                        "its pickle has a dictionary key without a value",
                    ));
                }
                self.items_on_top()?
                    .extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }

            opcode::BINGET => self.recall(1)?,
            opcode::LONG_BINGET => self.recall(4)?,
            opcode::BINPUT => self.memorize(1)?,
            opcode::LONG_BINPUT => self.memorize(4)?,
            opcode::MEMOIZE => {
                let key = u32::try_from(self.memo.len()).map_err(|_| too_many())?;
                self.keep(key)?;
            }

            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                let global = match Global::named(module, name) {
                    Some(known) => known,
                    None => Global::Unknown {
                        module: self.values.add(Value::Text(module.to_owned()))?,
                        name: self.values.add(Value::Text(name.to_owned()))?,
                    },
                };
                self.push(Value::Global(global))?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let known = Global::named(self.values.text(module)?, self.values.text(name)?);
                let global = known.unwrap_or(Global::Unknown { module, name });
                self.push(Value::Global(global))?;
            }
            opcode::BINPERSID => {
                let reference = self.pop()?;
                let storage = self.storage(reference)?;
                self.push(storage)?;
            }
            opcode::REDUCE => self.reduce()?,
            opcode::NEWOBJ => {
                let arguments = self.pop()?;
                self.instantiate(arguments)?;
            }
            opcode::NEWOBJ_EX => {
                let (_keywords, arguments) = (self.pop()?, self.pop()?);
                self.instantiate(arguments)?;
            }
            // Attributes: a state dict carries its modules' versions as one. No tensor depends on them.
            opcode::BUILD => {
                self.pop()?;
                self.items_on_top()?;
            }
            other => {
                return Err(FormatError::Unsupported(format!(
                    "pickle instruction 0x{other:02x} at byte {}, which torch.save does not write,",
                    self.started
                )));
            }
        }
        Ok(true)
    }

    /// Calls one of the allowed callables, which only rearrange values; the result of any other is a placeholder.
    fn reduce(&mut self) -> Result<(), FormatError> {
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
                // Of an element type that no network here has.
                if matches!(self.values.get(*storage), Value::Object { .. }) {
                    return Ok(placeholder);
                }
                let recipe = self.recipe(*storage, *offset, *shape, *strides)?;
                Built::New(Value::Tensor(recipe))
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

    /// What Python's `cls.__new__(cls, *arguments)` makes, with the class on top of the stack.
    fn instantiate(&mut self, arguments: Id) -> Result<(), FormatError> {
        let class = self.pop()?;
        self.instance_of(class, arguments)
    }

    /// Pushes the placeholder for an object of this class, or for the result of a call of this object.
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

    /// The storage of a persistent reference `("storage", type, key, location, elements)`; a placeholder for a type that
    /// no network here has.
    fn storage(&self, reference: Id) -> Result<Value, FormatError> {
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

    fn recipe(
        &self,
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    ) -> Result<Recipe, FormatError> {
        let Value::Storage(storage) = self.values.get(storage) else {
            return Err(FormatError::malformed(
                "a tensor in its pickle has no storage",
            ));
        };
        Ok(Recipe {
            storage: *storage,
            offset: self.values.size(offset)?,
            shape,
            strides,
        })
    }
}

/// The stack, the memo and the values.
impl Machine<'_> {
    fn push(&mut self, value: Value) -> Result<(), FormatError> {
        let id = self.values.add(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), FormatError> {
        if self.stack.len() >= MAX_VALUES {
            return Err(too_many());
        }
        self.stack.push(id);
        Ok(())
    }

    /// Takes the topmost value, which must lie above the last mark.
    fn pop(&mut self) -> Result<Id, FormatError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Result<Id, FormatError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(floor..).and_then(<[Id]>::last) {
            Some(id) => Ok(*id),
            None => Err(FormatError::malformed(format!(
                "its pickle instruction 0x{:02x} at byte {} takes more from the stack than there is",
                self.program[self.started], self.started
            ))),
        }
    }

    /// Drops the topmost value, or the mark where that is topmost.
    fn discard(&mut self) -> Result<(), FormatError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn mark(&mut self) -> Result<(), FormatError> {
        if self.marks.len() >= MAX_VALUES {
            return Err(too_many());
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, FormatError> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(FormatError::malformed("its pickle lacks a mark")),
        }
    }

    fn tuple(&mut self, length: usize) -> Result<(), FormatError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn recall(&mut self, key_bytes: usize) -> Result<(), FormatError> {
        let key = self.memo_key(key_bytes)?;
        match self.memo.get(&key) {
            Some(id) => self.push_id(*id),
            None => Err(FormatError::malformed(format!(
                "its pickle recalls value {key}, which was never kept"
            ))),
        }
    }

    fn memorize(&mut self, key_bytes: usize) -> Result<(), FormatError> {
        let key = self.memo_key(key_bytes)?;
        self.keep(key)
    }

    fn keep(&mut self, key: u32) -> Result<(), FormatError> {
        if self.memo.len() >= MAX_VALUES {
            return Err(too_many());
        }
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn memo_key(&mut self, bytes: usize) -> Result<u32, FormatError> {
        u32::try_from(self.unsigned(bytes)?).map_err(|_| too_many())
    }

    fn expect_list(&self) -> Result<(), FormatError> {
        let id = self.top()?;
        if !matches!(self.values.get(id), Value::List | Value::Object { .. }) {
            return Err(self.values.unexpected("a list", id));
        }
        Ok(())
    }

    fn items_on_top(&mut self) -> Result<&mut Vec<(Id, Id)>, FormatError> {
        let id = self.top()?;
        self.values.items_mut(id)
    }
}

/// The program's bytes.
impl<'a> Machine<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let taken = self
            .at
            .checked_add(length)
            .and_then(|end| self.program.get(self.at..end));
        match taken {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => Err(FormatError::malformed(format!(
                "its pickle ends at byte {}, {length} more were announced at byte {}",
                self.program.len(),
                self.at
            ))),
        }
    }

    fn byte(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], FormatError> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.take(LENGTH)?);
        Ok(array)
    }

    /// A little-endian number of at most eight bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, FormatError> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn push_unsigned(&mut self, bytes: usize) -> Result<(), FormatError> {
        let number = i64::try_from(self.unsigned(bytes)?).map_err(|_| too_many())?;
        self.push(Value::Int(number))
    }

    /// An integer of any length in two's complement; longer ones than 64 bits have no use in a tensor.
    fn long(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.length(length_bytes)?;
        let bytes = self.take(length)?;
        if length > 8 {
            return self.push(Value::Opaque);
        }
        let sign = if bytes.last().is_some_and(|byte| *byte >= 0x80) {
            0xff
        } else {
            0
        };
        let mut wide = [sign; 8];
        wide[..length].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn length(&mut self, length_bytes: usize) -> Result<usize, FormatError> {
        usize::try_from(self.unsigned(length_bytes)?).map_err(|_| too_many())
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.length(length_bytes)?;
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| FormatError::malformed("a string in its pickle is not UTF-8"))?;
        self.push(Value::Text(text.to_owned()))
    }

    fn opaque_bytes(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.length(length_bytes)?;
        self.take(length)?;
        self.push(Value::Opaque)
    }

    /// Text up to the next line feed.
    fn line(&mut self) -> Result<&'a str, FormatError> {
        let rest = &self.program[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(FormatError::malformed("a name in its pickle does not end"));
        };
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length])
            .map_err(|_| FormatError::malformed("a name in its pickle is not UTF-8"))
    }
}
