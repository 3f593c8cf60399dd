//! The instructions of a pickle.

use std::collections::BTreeMap;

use super::{
    opcode,
    reader::Reader,
    value::{Global, Id, Value, Values, too_many},
};
use crate::model::weights::FormatError;

/// The most instructions that run, a few seconds' worth. A checkpoint with its optimizer's state
/// has about 100,000.
const MAX_INSTRUCTIONS: usize = 50_000_000;

/// Returns whether a file starts like a pickle of protocol 2 or later.
pub(crate) fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [opcode::PROTO, 2..=5, ..])
}

/// Runs a pickle of protocol 2 to 4; returns all values and the id of the result.
pub(crate) fn unpickle(program: &[u8]) -> Result<(Values, Id), FormatError> {
    let mut machine = Machine {
        reader: Reader::new(program),
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

pub(super) struct Machine<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) values: Values,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack at which a mark was set.
    pub(super) marks: Vec<usize>,
    pub(super) memo: BTreeMap<u32, Id>,
    /// Position of the current instruction.
    pub(super) started: usize,
}

impl Machine<'_> {
    /// Runs one instruction; false after the last.
    fn step(&mut self) -> Result<bool, FormatError> {
        self.started = self.reader.position();
        match self.reader.byte()? {
            opcode::PROTO => {
                let version = self.reader.byte()?;
                if !(2..=4).contains(&version) {
                    return Err(FormatError::Unsupported(format!(
                        "pickle protocol {version}"
                    )));
                }
            }
            // Frames only help a reader to buffer.
            opcode::FRAME => drop(self.reader.unsigned(8)?),
            opcode::STOP => return Ok(false),

            opcode::NONE => self.push(Value::Null)?,
            opcode::NEWTRUE | opcode::NEWFALSE => self.push(Value::Bool)?,
            opcode::BININT => {
                let number = i32::from_le_bytes(self.reader.array()?);
                self.push(Value::Int(number.into()))?;
            }
            opcode::BININT1 => self.push_unsigned(1)?,
            opcode::BININT2 => self.push_unsigned(2)?,
            opcode::LONG1 => self.long(1)?,
            opcode::LONG4 => self.long(4)?,
            opcode::BINFLOAT => {
                self.reader.take(8)?;
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
                let (module, name) = (self.reader.line()?, self.reader.line()?);
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
            // Attributes: a state dict carries its modules' versions as one. No tensor depends on
            // them.
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

    fn push_unsigned(&mut self, bytes: usize) -> Result<(), FormatError> {
        let number = i64::try_from(self.reader.unsigned(bytes)?).map_err(|_| too_many())?;
        self.push(Value::Int(number))
    }

    /// An integer of any length in two's complement; longer ones than 64 bits have no use in a
    /// tensor.
    fn long(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.reader.length(length_bytes)?;
        let bytes = self.reader.take(length)?;
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

    fn text(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.reader.length(length_bytes)?;
        let text = std::str::from_utf8(self.reader.take(length)?)
            .map_err(|_| FormatError::malformed("a string in its pickle is not UTF-8"))?;
        self.push(Value::Text(text.to_owned()))
    }

    fn opaque_bytes(&mut self, length_bytes: usize) -> Result<(), FormatError> {
        let length = self.reader.length(length_bytes)?;
        self.reader.take(length)?;
        self.push(Value::Opaque)
    }
}
