//! torch's `.pth` format: a zip archive with a pickle (`data.pkl`) and one entry of raw elements for each storage.

use std::collections::BTreeMap;

use super::archive::Archive;
use super::error::quoted;
use super::pickle::unpickle;
use super::select::{self, Group, Other, TOP, Wanted};
use super::value::{Id, Recipe, Storage, Value, Values};
use super::{FormatError, Found, StateDict, TensorData};

/// The entry beside the tensors that describes a model of Visage; torch ignores it.
pub(super) const DESCRIPTION_ENTRY: &str = "visage.json";
/// Longest description that is read, in bytes.
const MAX_DESCRIPTION: usize = 65_536;
/// Dictionaries within dictionaries that are searched for tensors.
const MAX_DEPTH: usize = 5;
/// Entries of dictionaries that are searched for tensors; those of a dictionary that lies in many others count each time.
const MAX_SEARCHED: usize = 1_000_000;
/// Dictionaries with tensors in one file.
const MAX_GROUPS: usize = 1_000;
/// Ways to the same dictionary that are kept.
const MAX_PATHS: usize = 8;
/// Longest name of a tensor and longest key that leads to one, in bytes; torchvision's names have at most 40.
const MAX_NAME: usize = 1_024;
/// Entries beside the tensors of a group that are kept for an error.
const MAX_OTHERS: usize = 100;
/// How many times the file's size its tensors may take in memory: views that overlap or repeat a storage unfold when
/// they are made contiguous.
const UNFOLD_FACTOR: usize = 4;
/// Small files may unfold to this many bytes whatever their size.
const UNFOLD_MINIMUM: usize = 1 << 20;

/// Reads the wanted tensors of a file.
pub(super) fn read(file: &[u8], wanted: Wanted<'_>) -> Result<Found, FormatError> {
    let archive = Archive::open(file)?;
    let folder = top_folder(&archive)?;
    if is_torchscript(&archive, folder) {
        return Err(FormatError::TorchScript);
    }
    let program = archive.bytes(&format!("{folder}/data.pkl"))?;
    let mut storages = Storages::new(&archive, folder, file.len())?;
    Ok(Found {
        description: description(&archive, folder),
        ..tensors(program, &mut storages, wanted)?
    })
}

/// Runs the pickle and makes each of the wanted tensors contiguous.
pub(super) fn tensors(
    program: &[u8],
    storages: &mut Storages<'_>,
    wanted: Wanted<'_>,
) -> Result<Found, FormatError> {
    let (values, root) = unpickle(program)?;
    let Some(top) = values.items(root) else {
        return Err(not_a_dictionary(&values, root));
    };
    let (groups, entries): (Vec<Group<'_>>, Vec<&[(Id, Id)]>) = groups(&values, root);
    if groups.is_empty() {
        let others: Vec<Other<'_>> = top
            .iter()
            .map(|(key, value)| other(&values, *key, *value))
            .collect();
        return Err(select::instead_of_tensors(others.iter()).unwrap_or_else(|| {
            FormatError::malformed(
                "it holds no tensors, neither directly nor under state_dict or model",
            )
        }));
    }
    let choice = select::choose(&groups, wanted)?;
    let mut state = StateDict::new();
    for (key, value) in entries[choice.group] {
        if let Some(name) = name(&values, *key)
            && let Some(stripped) = name.strip_prefix(&choice.prefix)
            && let Value::Tensor(recipe) = values.get(*value)
        {
            let tensor = storages
                .tensor(&values, recipe)
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

/// A dictionary on the search for tensors.
struct Node {
    id: Id,
    /// The node and the key that lead to it; `None` for the top level.
    from: Option<(usize, Id)>,
    depth: usize,
}

/// The dictionaries with tensors, and their entries. A file can nest a dictionary in itself, so depth and work are limited;
/// what is nested less deeply is found first.
fn groups(values: &Values, root: Id) -> (Vec<Group<'_>>, Vec<&[(Id, Id)]>) {
    let (mut found, mut entries) = (Vec::<Group<'_>>::new(), Vec::new());
    // By dictionary, where it was found to have tensors.
    let mut known: BTreeMap<Id, Option<usize>> = BTreeMap::new();
    let mut nodes = vec![Node {
        id: root,
        from: None,
        depth: 0,
    }];
    let mut next = 0;
    let mut left = MAX_SEARCHED;
    while let Some(Node { id, depth, .. }) = nodes.get(next) {
        let (id, depth, items) = (*id, *depth, values.items(*id).unwrap_or_default());
        let Some(rest) = left.checked_sub(items.len() + 1) else {
            break;
        };
        left = rest;
        let index = *known.entry(id).or_insert_with(|| {
            let group = group(values, items);
            let is_kept = !group.tensors.is_empty() && found.len() < MAX_GROUPS;
            is_kept.then(|| {
                found.push(group);
                entries.push(items);
                found.len() - 1
            })
        });
        if let Some(index) = index
            && found[index].paths.len() < MAX_PATHS
        {
            found[index].paths.push(path(values, &nodes, next));
        }
        if depth < MAX_DEPTH {
            let inner = items.iter().filter(|(key, value)| {
                name(values, *key).is_some()
                    && values.items(*value).is_some_and(|items| !items.is_empty())
            });
            nodes.extend(inner.map(|(key, value)| Node {
                id: *value,
                from: Some((next, *key)),
                depth: depth + 1,
            }));
        }
        next += 1;
    }
    (found, entries)
}

/// The keys that lead to a node, joined by dots.
fn path(values: &Values, nodes: &[Node], mut node: usize) -> String {
    let mut keys = Vec::new();
    while let Some((parent, key)) = nodes[node].from {
        keys.push(name(values, key).unwrap_or_default());
        node = parent;
    }
    if keys.is_empty() {
        return TOP.to_owned();
    }
    keys.reverse();
    keys.join(".")
}

fn group<'v>(values: &'v Values, items: &[(Id, Id)]) -> Group<'v> {
    let mut group = Group::default();
    for (key, value) in items {
        if let Some(name) = name(values, *key)
            && let Value::Tensor(recipe) = values.get(*value)
        {
            // Without a readable shape it fits nothing, and is the error where it is wanted.
            let shape = values.dimensions(recipe).map(|(shape, _)| shape);
            group.tensors.insert(name, shape.unwrap_or_default());
        } else if group.others.len() < MAX_OTHERS {
            group.others.push(other(values, *key, *value));
        }
    }
    group
}

fn other(values: &Values, key: Id, value: Id) -> Other<'_> {
    Other {
        name: name(values, key),
        object: values.python_name(value),
    }
}

/// A key that can be a name.
fn name(values: &Values, key: Id) -> Option<&str> {
    values.text(key).ok().filter(|name| name.len() <= MAX_NAME)
}

fn not_a_dictionary(values: &Values, root: Id) -> FormatError {
    match values.python_name(root) {
        Some((module, name)) => FormatError::ForbiddenGlobal {
            name: quoted(&format!("{module}.{name}")),
        },
        None => FormatError::Unsupported(
            "a pickled value that is not a dictionary of tensors".to_owned(),
        ),
    }
}

/// TorchScript keeps its code beside the pickle.
fn is_torchscript(archive: &Archive<'_>, folder: &str) -> bool {
    let code = format!("{folder}/code/");
    archive.contains(&format!("{folder}/constants.pkl"))
        || archive.names().any(|name| name.starts_with(&code))
}

/// Before torch 1.4 TorchScript had a `model.json` in place of the pickle.
fn is_old_torchscript(name: &str) -> bool {
    name.strip_suffix("/model.json")
        .is_some_and(|folder| !folder.contains('/'))
}

/// What a file says of itself; a description that cannot be read is none.
fn description(archive: &Archive<'_>, folder: &str) -> Option<String> {
    let name = format!("{folder}/{DESCRIPTION_ENTRY}");
    let bytes = archive.contains(&name).then(|| archive.bytes(&name).ok())??;
    let text = (bytes.len() <= MAX_DESCRIPTION).then(|| std::str::from_utf8(bytes).ok())??;
    Some(text.to_owned())
}

/// The directory in which the archive holds everything; torch names it after the file.
fn top_folder<'a>(archive: &'a Archive<'_>) -> Result<&'a str, FormatError> {
    let mut folders = archive
        .names()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|folder| !folder.contains('/'));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder),
        (None, _) if archive.names().any(is_old_torchscript) => Err(FormatError::TorchScript),
        (None, _) => Err(FormatError::malformed(
            "it is a zip archive without data.pkl, so torch.save did not write it",
        )),
        (Some(_), Some(_)) => Err(FormatError::malformed(
            "it is a zip archive with more than one data.pkl",
        )),
    }
}

/// The archive's storages, each checked once, and how many bytes tensors may still take.
pub(super) struct Storages<'a> {
    archive: &'a Archive<'a>,
    folder: &'a str,
    big_endian: bool,
    checked: BTreeMap<String, &'a [u8]>,
    limit: usize,
    left: usize,
}

impl<'a> Storages<'a> {
    /// `file_bytes` is the size of the whole file, from which the limit on the tensors' size follows.
    pub(super) fn new(
        archive: &'a Archive<'a>,
        folder: &'a str,
        file_bytes: usize,
    ) -> Result<Self, FormatError> {
        let limit = file_bytes.saturating_mul(UNFOLD_FACTOR).max(UNFOLD_MINIMUM);
        Ok(Self {
            archive,
            folder,
            big_endian: is_big_endian(archive, folder)?,
            checked: BTreeMap::new(),
            limit,
            left: limit,
        })
    }

    /// The tensor a recipe describes, contiguous and little endian.
    fn tensor(&mut self, values: &Values, recipe: &Recipe) -> Result<TensorData, FormatError> {
        let dtype = recipe.storage.dtype;
        let size = dtype.size();
        let (shape, strides) = values.dimensions(recipe)?;
        let elements = shape
            .iter()
            .try_fold(1usize, |product, length| product.checked_mul(*length))
            .ok_or_else(|| FormatError::malformed(format!("shape {shape:?} is impossible")))?;
        let bytes = elements.saturating_mul(size);
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(FormatError::Unfolds {
                limit: self.limit,
                factor: UNFOLD_FACTOR,
            });
        };
        self.left = left;

        let storage = self.storage(values.key(&recipe.storage)?, &recipe.storage)?;
        let mut data = gather(storage, size, recipe.offset, &shape, &strides)?;
        if self.big_endian && size > 1 {
            data.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(TensorData { dtype, shape, data })
    }

    /// The bytes of a storage; exactly as many as the pickle says.
    fn storage(&mut self, key: &str, storage: &Storage) -> Result<&'a [u8], FormatError> {
        let content = match self.checked.get(key) {
            Some(content) => *content,
            None => {
                let content = self.archive.bytes(&format!("{}/data/{key}", self.folder))?;
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

/// Copies the elements that a view of a storage shows, in row-major order. An element has `size` bytes; `offset` and
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

    // Trailing dimensions that lie in row-major order are one run of elements, copied at once.
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
        // Step to the next position as an odometer does, from the innermost of the outer dimensions.
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

/// Storages are in the byte order of the machine that saved them, which newer torch versions note in an entry.
fn is_big_endian(archive: &Archive<'_>, folder: &str) -> Result<bool, FormatError> {
    let name = format!("{folder}/byteorder");
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
