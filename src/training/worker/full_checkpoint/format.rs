//! Format of the file.

/// Version of the record and of the layout of flat buffers; a program reads only its own.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Name of the record among the tensors.
pub(super) const RECORD: &str = "record";

/// CRC32C (Castagnoli; RFC 3720, appendix B.4) over names and bytes of tensors.
pub(super) fn checksum<'a>(parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
    parts.fold(0, |sum, (name, bytes)| {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, name.as_bytes()), bytes)
    })
}
