//! A restricted unpickler: a machine that can build plain values and descriptions of tensors, and nothing else.
//!
//! A pickle is a program. The ordinary unpickler imports and calls whatever that program names; this one knows only the
//! names that tensors need ([`Global::named`]), runs nothing, and answers any other name with
//! [`FormatError::ForbiddenGlobal`].
//!
//! Values live in one vector and refer to each other by index ([`Id`]). So a value that contains itself, thousands of
//! nested lists or a long string that is fetched from the memo thousands of times cost no recursion and no copies,
//! neither here nor when the values are dropped: memory grows by a few bytes for each byte of the pickle.

use std::collections::BTreeMap;

use super::FormatError;
use super::opcode;
use super::value::{Global, Id, MAX_VALUES, Recipe, Storage, Value, Values, too_many};

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
    };
    while machine.step()? {}
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
}

impl<'a> Machine<'a> {
    /// Runs one instruction; false after the last.
    fn step(&mut self) -> Result<bool, FormatError> {
        let started = self.at;
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
            opcode::LONG1 => self.long()?,
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
            // What a list holds no tensor depends on, so its items are dropped.
            opcode::EMPTY_LIST => self.push(Value::List)?,
            opcode::APPEND => {
                self.pop()?;
                self.expect_list()?;
            }
            opcode::APPENDS => {
                self.pop_to_mark()?;
                self.expect_list()?;
            }
            opcode::EMPTY_DICT => self.push(Value::Dict(Vec::new()))?,
            opcode::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.dict_on_top()?.push((key, value));
            }
            opcode::SETITEMS => {
                let items = self.pop_to_mark()?;
                let (pairs, odd) = items.as_chunks::<2>();
                if !odd.is_empty() {
                    return Err(FormatError::malformed(
                        "its pickle has a dictionary key without a value",
                    ));
                }
                self.dict_on_top()?
                    .extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }

            opcode::BINGET => self.recall(1)?,
            opcode::LONG_BINGET => self.recall(4)?,
            opcode::BINPUT => self.memorize(1)?,
            opcode::LONG_BINPUT => self.memorize(4)?,
            opcode::MEMOIZE => {
                let key = u32::try_from(self.memo.len()).map_err(|_| too_many())?;
                self.memo.insert(key, self.top()?);
            }

            opcode::GLOBAL => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(Global::named(module, name)?))?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = Global::named(self.values.text(module)?, self.values.text(name)?)?;
                self.push(Value::Global(global))?;
            }
            opcode::BINPERSID => {
                let reference = self.pop()?;
                let storage = self.storage(reference)?;
                self.push(Value::Storage(storage))?;
            }
            opcode::REDUCE => self.reduce()?,
            // A state dict carries its modules' versions as an attribute; no tensor depends on it.
            opcode::BUILD => {
                self.pop()?;
                self.dict_on_top()?;
            }
            other => {
                return Err(FormatError::Unsupported(format!(
                    "pickle instruction 0x{other:02x} at byte {started}, which torch.save does not write for a state dict,"
                )));
            }
        }
        Ok(true)
    }

    /// Calls one of the allowed callables, each of which only rearranges values.
    fn reduce(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let Value::Global(global) = self.values.get(callable) else {
            return Err(FormatError::malformed(
                "its pickle calls something that is not callable",
            ));
        };
        let arguments = self.values.tuple(arguments)?;
        match (global, arguments) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, shape, strides, _requires_grad, _hooks]) => {
                let recipe = self.recipe(*storage, *offset, *shape, *strides)?;
                self.push(Value::Tensor(recipe))
            }
            (Global::RebuildParameter, [data, _requires_grad, _hooks]) => {
                let data = *data;
                if !matches!(self.values.get(data), Value::Tensor(_)) {
                    return Err(FormatError::malformed(
                        "a parameter in its pickle has no tensor",
                    ));
                }
                self.push_id(data)
            }
            (Global::StorageOf(_), _) => {
                Err(FormatError::malformed("its pickle calls a storage type"))
            }
            (Global::OrderedDict | Global::RebuildTensor | Global::RebuildParameter, _) => Err(
                FormatError::Unsupported(format!("{global:?} with {} arguments", arguments.len())),
            ),
        }
    }

    /// The storage that a persistent reference `("storage", type, key, location, elements)` stands for.
    fn storage(&self, reference: Id) -> Result<Storage, FormatError> {
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
        let Value::Global(Global::StorageOf(dtype)) = self.values.get(*class) else {
            return Err(FormatError::malformed(
                "a storage reference has no storage type",
            ));
        };
        self.values.text(*key)?;
        Ok(Storage {
            dtype: *dtype,
            key: *key,
            elements: self.values.size(*elements)?,
        })
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
            None => Err(FormatError::malformed(
                "its pickle takes more from the stack than there is",
            )),
        }
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
        if !matches!(self.values.get(id), Value::List) {
            return Err(self.values.unexpected("a list", id));
        }
        Ok(())
    }

    fn dict_on_top(&mut self) -> Result<&mut Vec<(Id, Id)>, FormatError> {
        let id = self.top()?;
        self.values.dict_mut(id)
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
    fn long(&mut self) -> Result<(), FormatError> {
        let length = usize::from(self.byte()?);
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
