//! Entries of a tar.
//!
//! The `tar` crate reads the headers. Long names are read here, because the crate would read one of
//! any length into memory.

use std::io::Read;

use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::{
    Error,
    entry::{Kind, Place, Target},
    names,
};

/// A backslash is refused: on the systems that write tars it is an ordinary character.
const SEPARATORS: &[char] = &['/'];
/// Most bytes of a long name or of extensions.
const MAX_EXTENSION: u64 = 16 << 10;

/// Unpacks all entries.
pub(super) fn unpack(reader: impl Read, target: &mut Target<'_>) -> Result<(), Error> {
    let mut archive = Archive::new(reader);
    let entries = archive
        .entries()
        .map_err(|error| target.unreadable(error))?;
    // Name of the next entry, if an earlier entry gives it.
    let mut long_name: Option<Vec<u8>> = None;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| target.unreadable(error))?;
        let size = entry.header().entry_size();
        let size = size.map_err(|error| target.unreadable(error))?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            target.count("(a long name)")?;
            let mut name = extension(&mut entry, size, target)?;
            while name.last() == Some(&0) {
                name.pop();
            }
            long_name = Some(name);
        } else if kind.is_pax_local_extensions() {
            target.count("(extensions)")?;
            let text = extension(&mut entry, size, target)?;
            if let Some(name) = pax_name(&text, target)? {
                long_name = Some(name);
            }
        } else if kind.is_pax_global_extensions() {
            // They apply to all later entries; none of them matters here.
            target.count("(global extensions)")?;
        } else {
            let name = long_name
                .take()
                .unwrap_or_else(|| entry.path_bytes().into_owned());
            match target.accept(&names::of_tar(&name), SEPARATORS, entry_kind(kind))? {
                Place::File(path) => target.write(&path, entry, size)?,
                Place::Unknown(path, name) => target.write_image(&path, name, entry, size)?,
                Place::Nowhere => {}
            }
        }
    }
    Ok(())
}

fn entry_kind(kind: EntryType) -> Kind {
    match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Other("a symbolic link"),
        EntryType::Link => Kind::Other("a hard link"),
        EntryType::Char | EntryType::Block => Kind::Other("a device"),
        EntryType::Fifo => Kind::Other("a pipe"),
        EntryType::GNUSparse => Kind::Other("a sparse file"),
        // A link whose target is long is still a link.
        EntryType::GNULongLink => Kind::Other("a link with a long target"),
        // Handled by the caller.
        EntryType::GNULongName | EntryType::XGlobalHeader | EntryType::XHeader => {
            Kind::Other("of a kind that has no files")
        }
        _ => Kind::Other("of a kind that is not known"),
    }
}

/// Reads an entry that describes the next one.
fn extension(
    entry: &mut Entry<'_, impl Read>,
    size: u64,
    target: &Target<'_>,
) -> Result<Vec<u8>, Error> {
    if size > MAX_EXTENSION {
        return Err(target.refuse(format!(
            "it must have at most {MAX_EXTENSION} bytes, got {size}"
        )));
    }
    let mut bytes = Vec::new();
    let read = entry.read_to_end(&mut bytes);
    let read = read.map_err(|error| target.unreadable(error))?;
    if read as u64 != size {
        return Err(target.damaged(format!("it must have {size} bytes, got {read}")));
    }
    Ok(bytes)
}

/// Returns the name that POSIX extensions give to the next entry.
fn pax_name(text: &[u8], target: &Target<'_>) -> Result<Option<Vec<u8>>, Error> {
    let mut name = None;
    for record in PaxExtensions::new(text) {
        let record = record.map_err(|error| target.unreadable(error))?;
        match record.key_bytes() {
            b"path" => name = Some(record.value_bytes().to_vec()),
            // The size in the header would be wrong.
            b"size" => return Err(target.refuse("it is a file of more than 8 GB".to_owned())),
            key if key.starts_with(b"GNU.sparse") => {
                return Err(target.refuse("it is a sparse file".to_owned()));
            }
            _ => {}
        }
    }
    Ok(name)
}
