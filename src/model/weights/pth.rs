//! torch's `.pth` format: a zip archive with a pickle (`data.pkl`) and one entry of raw elements
//! for each storage.

use std::collections::BTreeMap;

use super::{
    FormatError, Found, StateDict, TensorData,
    archive::Archive,
    pickle::{Id, Storage, TensorView, Value, Values, unpickle},
    search::{Search, name, other},
    select::{self, NonTensor, Selection},
    text::{quoted, quoted_object},
};

/// The archive entry with the model description of Visage; torch ignores it.
pub(super) const DESCRIPTION_ENTRY: &str = "visage.json";
/// Size limit of the description, in bytes.
const MAX_DESCRIPTION: usize = 65_536;
/// Allowed ratio of the tensors' memory to the file's size: views that overlap or repeat a storage
/// expand when they become contiguous.
const EXPANSION_FACTOR: usize = 4;
/// Tensors may always take this many bytes.
const EXPANSION_MINIMUM: usize = 1 << 20;

/// Reads the selected tensors of a file.
pub(super) fn read(file: &[u8], selection: Selection<'_>) -> Result<Found, FormatError> {
    let archive = Archive::open(file)?;
    let directory = top_directory(&archive)?;
    if is_torchscript(&archive, directory) {
        return Err(FormatError::TorchScript);
    }
    let program = archive.bytes(&format!("{directory}/data.pkl"))?;
    let mut storages = Storages::new(&archive, directory, file.len())?;
    Ok(Found {
        description: description(&archive, directory),
        ..tensors(program, &mut storages, selection)?
    })
}

/// Runs the pickle and makes the selected tensors contiguous.
pub(super) fn tensors(
    program: &[u8],
    storages: &mut Storages<'_>,
    selection: Selection<'_>,
) -> Result<Found, FormatError> {
    let (values, root) = unpickle(program)?;
    let Some(top) = values.items(root) else {
        return Err(not_a_dictionary(&values, root));
    };
    let Search { groups, entries } = Search::from(&values, root);
    if groups.is_empty() {
        // An object without items is not a subclass of dict.
        if top.is_empty() && values.python_name(root).is_some() {
            return Err(not_a_dictionary(&values, root));
        }
        let others: Vec<NonTensor<'_>> = top
            .iter()
            .map(|(key, value)| other(&values, *key, *value))
            .collect();
        return Err(
            select::instead_of_tensors(others.iter()).unwrap_or_else(|| {
                FormatError::malformed(
                    "it has no tensors, neither directly nor under state_dict or model",
                )
            }),
        );
    }
    let choice = select::choose(&groups, selection)?;
    let mut state = StateDict::new();
    for (key, value) in entries[choice.group] {
        if let Some(name) = name(&values, *key)
            && let Some(stripped) = name.strip_prefix(&choice.prefix)
            && let Value::Tensor(view) = values.get(*value)
        {
            let tensor = storages
                .tensor(&values, view)
                .map_err(|error| name_tensor(error, name))?;
            state.insert(stripped.to_owned(), tensor);
        }
    }
    Ok(Found {
        state,
        place: groups[choice.group].paths[0].clone(),
        prefix: choice.prefix,
        description: None,
    })
}

fn not_a_dictionary(values: &Values, root: Id) -> FormatError {
    match values.python_name(root) {
        Some((module, name)) => FormatError::ForbiddenGlobal {
            name: quoted_object(module, name),
        },
        None => FormatError::Unsupported(
            "a pickled value that is not a dictionary of tensors".to_owned(),
        ),
    }
}

/// TorchScript keeps its code beside the pickle.
fn is_torchscript(archive: &Archive<'_>, directory: &str) -> bool {
    let code = format!("{directory}/code/");
    archive.contains(&format!("{directory}/constants.pkl"))
        || archive.names().any(|name| name.starts_with(&code))
}

/// Before torch 1.4 TorchScript had a `model.json` in place of the pickle.
fn is_old_torchscript(name: &str) -> bool {
    name.strip_suffix("/model.json")
        .is_some_and(|directory| !directory.contains('/'))
}

/// The stored description; `None` if it cannot be read.
fn description(archive: &Archive<'_>, directory: &str) -> Option<String> {
    let name = format!("{directory}/{DESCRIPTION_ENTRY}");
    let bytes = archive
        .contains(&name)
        .then(|| archive.bytes(&name).ok())??;
    let text = (bytes.len() <= MAX_DESCRIPTION).then(|| std::str::from_utf8(bytes).ok())??;
    Some(text.to_owned())
}

/// The only directory of the archive; torch names it after the file.
fn top_directory<'a>(archive: &'a Archive<'_>) -> Result<&'a str, FormatError> {
    let mut directories = archive
        .names()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|directory| !directory.contains('/'));
    match (directories.next(), directories.next()) {
        (Some(directory), None) => Ok(directory),
        (None, _) if archive.names().any(is_old_torchscript) => Err(FormatError::TorchScript),
        (None, _) => Err(FormatError::malformed(
            "it is a zip archive without data.pkl, so torch.save did not write it",
        )),
        (Some(_), Some(_)) => Err(FormatError::malformed(
            "it is a zip archive with more than one data.pkl",
        )),
    }
}

/// The archive's storages, each verified once, and the bytes that tensors may still take.
pub(super) struct Storages<'a> {
    archive: &'a Archive<'a>,
    directory: &'a str,
    big_endian: bool,
    checked: BTreeMap<String, &'a [u8]>,
    limit: usize,
    left: usize,
}

impl<'a> Storages<'a> {
    /// `file_bytes` is the size of the file, which determines the limit on the tensors' size.
    pub(super) fn new(
        archive: &'a Archive<'a>,
        directory: &'a str,
        file_bytes: usize,
    ) -> Result<Self, FormatError> {
        let limit = file_bytes
            .saturating_mul(EXPANSION_FACTOR)
            .max(EXPANSION_MINIMUM);
        Ok(Self {
            archive,
            directory,
            big_endian: is_big_endian(archive, directory)?,
            checked: BTreeMap::new(),
            limit,
            left: limit,
        })
    }

    /// The tensor of a view, contiguous and little endian.
    fn tensor(&mut self, values: &Values, view: &TensorView) -> Result<TensorData, FormatError> {
        let dtype = view.storage.dtype;
        let size = dtype.size();
        let (shape, strides) = values.dimensions(view)?;
        let elements = shape
            .iter()
            .try_fold(1usize, |product, length| product.checked_mul(*length))
            .ok_or_else(|| FormatError::malformed(format!("shape {shape:?} is impossible")))?;
        let bytes = elements.saturating_mul(size);
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(FormatError::Expands {
                limit: self.limit,
                factor: EXPANSION_FACTOR,
            });
        };
        self.left = left;

        let storage = self.storage(values.key(&view.storage)?, &view.storage)?;
        let mut data = gather(storage, size, view.offset, &shape, &strides)?;
        if self.big_endian && size > 1 {
            data.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(TensorData { dtype, shape, data })
    }

    /// The bytes of a storage, of the length that the pickle states.
    fn storage(&mut self, key: &str, storage: &Storage) -> Result<&'a [u8], FormatError> {
        let content = match self.checked.get(key) {
            Some(content) => *content,
            None => {
                let content = self
                    .archive
                    .bytes(&format!("{}/data/{key}", self.directory))?;
                self.checked.insert(key.to_owned(), content);
                content
            }
        };
        if storage.elements.checked_mul(storage.dtype.size()) != Some(content.len()) {
            return Err(FormatError::malformed(format!(
                "storage {} has {} bytes, expected {} elements of {}",
                quoted(key),
                content.len(),
                storage.elements,
                storage.dtype
            )));
        }
        Ok(content)
    }
}

/// Copies the elements of a view in row-major order. An element has `size` bytes; `offset` and
/// `strides` count elements.
fn gather(
    storage: &[u8],
    size: usize,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
) -> Result<Vec<u8>, FormatError> {
    if shape.contains(&0) {
        return Ok(Vec::new());
    }
    // A dimension of length one is never stepped along, whatever its stride says.
    let mut outer: Vec<(usize, usize)> = shape
        .iter()
        .copied()
        .zip(strides.iter().copied())
        .filter(|(length, _)| *length > 1)
        .collect();
    let last = outer.iter().try_fold(offset, |index, (length, stride)| {
        index.checked_add((length - 1).checked_mul(*stride)?)
    });
    if last.is_none_or(|last| last >= storage.len() / size) {
        return Err(FormatError::malformed(format!(
            "shape {shape:?} with strides {strides:?} from element {offset} reaches past its storage of {} elements",
            storage.len() / size
        )));
    }

    // Trailing dimensions in row-major order are one run of elements, copied at once.
    let mut run = 1;
    while let Some((length, _)) = outer.pop_if(|(_, stride)| *stride == run) {
        run *= length;
    }
    let elements: usize = shape.iter().product();
    let mut data = Vec::with_capacity(elements * size);
    let mut position = vec![0; outer.len()];
    let mut from = offset;
    loop {
        data.extend_from_slice(&storage[from * size..(from + run) * size]);
        // Step to the next position as an odometer does, from the innermost of the outer
        // dimensions.
        let mut dimension = outer.len();
        loop {
            if dimension == 0 {
                return Ok(data);
            }
            dimension -= 1;
            let (length, stride) = outer[dimension];
            position[dimension] += 1;
            from += stride;
            if position[dimension] < length {
                break;
            }
            from -= length * stride;
            position[dimension] = 0;
        }
    }
}

/// Storages are in the byte order of the machine that saved them, which newer torch versions note
/// in an entry.
fn is_big_endian(archive: &Archive<'_>, directory: &str) -> Result<bool, FormatError> {
    let name = format!("{directory}/byteorder");
    if !archive.contains(&name) {
        return Ok(false);
    }
    match archive.bytes(&name)? {
        b"little" => Ok(false),
        b"big" => Ok(true),
        other => Err(FormatError::Unsupported(format!(
            "byte order {}",
            quoted(&String::from_utf8_lossy(other))
        ))),
    }
}

/// Adds the tensor's name to an error about its content.
fn name_tensor(error: FormatError, name: &str) -> FormatError {
    if let FormatError::Malformed(reason) = error {
        return FormatError::Malformed(format!("tensor {}: {reason}", quoted(name)));
    }
    error
}
