//! The stack and the memo.

use super::{
    machine::Machine,
    value::{Id, MAX_VALUES, Value, too_many},
};
use crate::model::weights::FormatError;

impl Machine<'_> {
    pub(super) fn push(&mut self, value: Value) -> Result<(), FormatError> {
        let id = self.values.add(value)?;
        self.push_id(id)
    }

    pub(super) fn push_id(&mut self, id: Id) -> Result<(), FormatError> {
        if self.stack.len() >= MAX_VALUES {
            return Err(too_many());
        }
        self.stack.push(id);
        Ok(())
    }

    /// Takes the topmost value, which must lie above the last mark.
    pub(super) fn pop(&mut self) -> Result<Id, FormatError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    pub(super) fn top(&self) -> Result<Id, FormatError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(floor..).and_then(<[Id]>::last) {
            Some(id) => Ok(*id),
            None => Err(FormatError::malformed(format!(
                "its pickle instruction 0x{:02x} at byte {} takes more from the stack than there is",
                self.reader.byte_at(self.started),
                self.started
            ))),
        }
    }

    /// Drops the topmost value, or the mark where that is topmost.
    pub(super) fn discard(&mut self) -> Result<(), FormatError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    pub(super) fn mark(&mut self) -> Result<(), FormatError> {
        if self.marks.len() >= MAX_VALUES {
            return Err(too_many());
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Id>, FormatError> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(FormatError::malformed("its pickle lacks a mark")),
        }
    }

    pub(super) fn tuple(&mut self, length: usize) -> Result<(), FormatError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    pub(super) fn recall(&mut self, key_bytes: usize) -> Result<(), FormatError> {
        let key = self.memo_key(key_bytes)?;
        match self.memo.get(&key) {
            Some(id) => self.push_id(*id),
            None => Err(FormatError::malformed(format!(
                "its pickle recalls value {key}, which was never kept"
            ))),
        }
    }

    pub(super) fn memorize(&mut self, key_bytes: usize) -> Result<(), FormatError> {
        let key = self.memo_key(key_bytes)?;
        self.keep(key)
    }

    pub(super) fn keep(&mut self, key: u32) -> Result<(), FormatError> {
        if self.memo.len() >= MAX_VALUES {
            return Err(too_many());
        }
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    pub(super) fn memo_key(&mut self, bytes: usize) -> Result<u32, FormatError> {
        u32::try_from(self.reader.unsigned(bytes)?).map_err(|_| too_many())
    }

    pub(super) fn expect_list(&self) -> Result<(), FormatError> {
        let id = self.top()?;
        if !matches!(self.values.get(id), Value::List | Value::Object { .. }) {
            return Err(self.values.unexpected("a list", id));
        }
        Ok(())
    }

    pub(super) fn items_on_top(&mut self) -> Result<&mut Vec<(Id, Id)>, FormatError> {
        let id = self.top()?;
        self.values.items_mut(id)
    }
}
