//! Edits the token file, and lists its entries.

use std::{
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, lchown},
    path::Path,
    time::SystemTime,
};

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::{
    Limits, Role,
    credentials::Credentials,
    password,
    token::{self, TokenHash},
    token_file::{TokenFileError, parse, read, read_text},
};
use crate::files;

/// Another user could place a link in a shared directory.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// An entry to add.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) limits: Limits,
    pub(crate) credential: NewCredential,
}

#[derive(Debug)]
pub(crate) enum NewCredential {
    Token,
    Password(String),
    Certificate,
}

impl NewCredential {
    fn table(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Password(_) => "user",
            Self::Certificate => "certificate",
        }
    }

    fn name_key(&self) -> &'static str {
        match self {
            Self::Token | Self::Password(_) => "name",
            Self::Certificate => "subject",
        }
    }
}

/// Adds an entry, and returns the text of its token if it is one. The file is created if it does
/// not exist.
///
/// # Errors
/// The name exists, or the file cannot be read or written.
pub(crate) fn add(path: &Path, entry: &NewEntry) -> Result<Option<String>, TokenFileError> {
    let table_name = entry.credential.table();
    edit(path, |document| {
        let exists = names_of(document, table_name, entry.credential.name_key());
        if exists.contains(&entry.name) {
            return Err(TokenFileError::Exists {
                kind: table_name,
                name: entry.name.clone(),
            });
        }
        let mut table = Table::new();
        table[entry.credential.name_key()] = value(&entry.name);
        let mut created = None;
        match &entry.credential {
            NewCredential::Token => {
                let token = token::generate().map_err(|_| TokenFileError::NoRandomness)?;
                table["hash"] = value(TokenHash::of(&token).to_string());
                created = Some(token);
            }
            NewCredential::Password(text) => {
                let hash = password::hash(text).map_err(|_| TokenFileError::NoRandomness)?;
                table["password"] = value(hash);
            }
            NewCredential::Certificate => {}
        }
        let roles: Array = entry.roles.iter().map(|role| role.as_str()).collect();
        table["roles"] = value(roles);
        if let Some(time) = entry.expires {
            let text = humantime::format_rfc3339_seconds(time).to_string();
            if let Ok(time) = text.parse::<toml_edit::Datetime>() {
                table["expires"] = value(time);
            }
        }
        let limits = [
            ("calls", entry.limits.calls),
            ("calls_per_second", entry.limits.calls_per_second),
        ];
        if limits.iter().any(|(_, limit)| limit.is_some()) {
            let set = limits
                .iter()
                .filter_map(|(name, limit)| limit.map(|limit| (*name, i64::from(limit))));
            table["limits"] = value(set.collect::<toml_edit::InlineTable>());
        }
        let tables = document
            .entry(table_name)
            .or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = tables.as_array_of_tables_mut() {
            tables.push(table);
        }
        Ok(created)
    })
}

/// An entry as [`list`] returns it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `token`, `user` or `certificate`.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    /// In RFC 3339.
    pub(crate) expires: Option<String>,
}

const TABLES: [(&str, &str); 3] = [
    ("token", "name"),
    ("user", "name"),
    ("certificate", "subject"),
];

/// The entries of the file, without secrets.
///
/// # Errors
/// The file cannot be read or is not valid.
pub(crate) fn list(path: &Path) -> Result<Vec<Listed>, TokenFileError> {
    if read(path)?.is_none() {
        return Ok(Vec::new());
    }
    let document = parse(path, &read_text(path)?.unwrap_or_default())?;
    let mut listed = Vec::new();
    for (kind, name_key) in TABLES {
        for table in tables(&document, kind) {
            let roles = table.get("roles").and_then(Item::as_array);
            listed.push(Listed {
                kind,
                name: text(table, name_key),
                roles: roles
                    .into_iter()
                    .flat_map(Array::iter)
                    .filter_map(|role| role.as_str().map(str::to_owned))
                    .collect(),
                expires: table
                    .get("expires")
                    .and_then(Item::as_datetime)
                    .map(ToString::to_string),
            });
        }
    }
    Ok(listed)
}

/// Removes all entries with this name, and returns how many they were.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn revoke(path: &Path, name: &str) -> Result<usize, TokenFileError> {
    edit(path, |document| {
        let mut removed = 0;
        for (kind, name_key) in TABLES {
            let Some(tables) = document
                .get_mut(kind)
                .and_then(Item::as_array_of_tables_mut)
            else {
                continue;
            };
            let before = tables.len();
            tables.retain(|table| text(table, name_key) != name);
            removed += before - tables.len();
        }
        Ok(removed)
    })
}

/// Changes the file under a lock, so that two commands do not lose each other's change. The result
/// is checked before it is written.
fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut DocumentMut) -> Result<T, TokenFileError>,
) -> Result<T, TokenFileError> {
    let io = |cause| TokenFileError::Io {
        path: path.to_owned(),
        cause,
    };
    let directory = files::parent_dir(path);
    fs::create_dir_all(directory).map_err(io)?;
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let mut options = std::fs::OpenOptions::new();
    options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW);
    let lock = options.open(&lock_path).map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    let text = read_text(path)?.unwrap_or_else(|| "version = 1\n".to_owned());
    let mut document = parse(path, &text)?;
    let result = change(&mut document)?;
    let text = document.to_string();
    Credentials::parse(&text).map_err(|cause| TokenFileError::Mistake {
        path: path.to_owned(),
        cause,
    })?;
    files::write_atomic(path, text.as_bytes()).map_err(io)?;
    if rustix::process::geteuid().is_root() {
        // The server may run as the owner of the directory.
        let owner = fs::metadata(directory).map_err(io)?;
        for file in [path, Path::new(&lock_path)] {
            lchown(file, Some(owner.uid()), Some(owner.gid())).map_err(io)?;
        }
    }
    Ok(result)
}

fn tables<'a>(document: &'a DocumentMut, kind: &str) -> impl Iterator<Item = &'a Table> {
    let tables = document.get(kind).and_then(Item::as_array_of_tables);
    tables.into_iter().flat_map(ArrayOfTables::iter)
}

fn names_of(document: &DocumentMut, kind: &str, name_key: &str) -> Vec<String> {
    tables(document, kind)
        .map(|table| text(table, name_key))
        .collect()
}

fn text(table: &Table, key: &str) -> String {
    let text = table.get(key).and_then(Item::as_str);
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, credential: NewCredential) -> NewEntry {
        NewEntry {
            name: name.to_owned(),
            roles: vec![Role::Trainer],
            expires: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_814_356_800)),
            limits: Limits {
                calls: Some(8),
                calls_per_second: None,
            },
            credential,
        }
    }

    #[test]
    fn added_entries_are_listed_and_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/tokens.toml");
        assert_eq!(list(&path).unwrap(), []);
        let token = add(&path, &entry("ci", NewCredential::Token))
            .unwrap()
            .unwrap();
        let mut user = entry("ada", NewCredential::Password("secret".to_owned()));
        user.expires = None;
        assert_eq!(add(&path, &user).unwrap(), None);
        let listed = list(&path).unwrap();
        let names: Vec<_> = listed
            .iter()
            .map(|entry| (entry.kind, entry.name.as_str()))
            .collect();
        assert_eq!(names, [("token", "ci"), ("user", "ada")]);
        assert_eq!(listed[0].expires.as_deref(), Some("2027-06-30T12:00:00Z"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token) && !text.contains("secret"), "{text}");
        let read = read(&path).unwrap().unwrap();
        let known = read.token(TokenHash::of(&token)).unwrap();
        assert_eq!(known.limits.calls, Some(8));

        let again = add(&path, &entry("ci", NewCredential::Token)).unwrap_err();
        assert!(again.to_string().contains("exists already"), "{again}");
        assert_eq!(revoke(&path, "ci").unwrap(), 1);
        assert_eq!(revoke(&path, "ci").unwrap(), 0);
        assert_eq!(list(&path).unwrap().len(), 1);
    }

    #[test]
    fn comments_survive_and_a_mistake_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        files::write_atomic(&path, b"version = 1\n# The build machine.\n").unwrap();
        add(&path, &entry("ci", NewCredential::Token)).unwrap();
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .contains("# The build machine.")
        );
        let before = fs::read_to_string(&path).unwrap();
        let long = add(&path, &entry(&"x".repeat(65), NewCredential::Token)).unwrap_err();
        assert!(long.to_string().contains("1 to 64 bytes"), "{long}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}
