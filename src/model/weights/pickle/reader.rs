//! Operands of instructions.

use super::value::too_many;
use crate::model::weights::FormatError;

/// The bytes of a pickle and the position of the next one.
pub(super) struct Reader<'a> {
    program: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(program: &'a [u8]) -> Self {
        Reader { program, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn byte_at(&self, position: usize) -> u8 {
        self.program[position]
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
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

    pub(super) fn byte(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], FormatError> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.take(LENGTH)?);
        Ok(array)
    }

    /// A little-endian number of at most eight bytes.
    pub(super) fn unsigned(&mut self, bytes: usize) -> Result<u64, FormatError> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    pub(super) fn length(&mut self, length_bytes: usize) -> Result<usize, FormatError> {
        usize::try_from(self.unsigned(length_bytes)?).map_err(|_| too_many())
    }

    /// Text up to the next line feed.
    pub(super) fn line(&mut self) -> Result<&'a str, FormatError> {
        let rest = &self.program[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(FormatError::malformed("a name in its pickle does not end"));
        };
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length])
            .map_err(|_| FormatError::malformed("a name in its pickle is not UTF-8"))
    }
}
