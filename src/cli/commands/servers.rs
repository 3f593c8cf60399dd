//! `visage servers`: named servers with their credentials, in a file of the user.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

use crate::{
    cli::{
        context::{Context, Outcome},
        error::Error,
        output::table,
    },
    config::{ServersFile, is_server_name},
    files,
};

const EXAMPLES: &str = "\
Examples:
  visage servers add prod https://age.example.org:50051 --token-file ~/token
  visage servers use prod                  commands without --server call it
  visage --server prod info
  visage servers list
  visage servers remove prod

The file is ~/.config/visage/servers.toml. It names the files of tokens and
keys, not their contents.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the servers; the current one is marked
    #[command(visible_alias = "ls")]
    List,
    /// Select the server of commands without --server
    Use { name: String },
    /// Add or replace a server, with --ca, --cert, --key and --token-file
    Add {
        name: String,
        /// HOST:PORT, https://HOST:PORT or unix:/PATH
        address: String,
    },
    /// Remove a server; files that it names are kept
    #[command(visible_alias = "rm")]
    Remove { name: String },
}

pub(crate) fn run(args: Args, context: &Context) -> Result<Outcome, Error> {
    let servers = ServersFile::read(&context.environment)?;
    match args.command.unwrap_or(Command::List) {
        Command::List => return list(&servers, context),
        Command::Use { name } => {
            check_exists(&servers, &name)?;
            edit(&servers, |document| document["current"] = value(&name))?;
            context
                .output
                .note(&format!("Commands without --server call {name}."));
        }
        Command::Add { name, address } => {
            if !is_server_name(&name) {
                return Err(Error::Usage(format!(
                    "the name must consist of letters, digits, `-`, `_` and `.`, got {name:?}"
                )));
            }
            let entry = entry(&address, context)?;
            let is_first = servers.servers().next().is_none();
            edit(&servers, |document| {
                let all = document
                    .entry("servers")
                    .or_insert_with(|| Item::Table(Table::new()));
                if let Some(all) = all.as_table_mut() {
                    all.set_implicit(true);
                }
                all[&name] = Item::Table(entry);
                if is_first {
                    document["current"] = value(&name);
                }
            })?;
            let current = if is_first {
                " It is the current one."
            } else {
                ""
            };
            context.output.note(&format!("Added {name}.{current}"));
        }
        Command::Remove { name } => {
            check_exists(&servers, &name)?;
            let is_current = servers.current() == Some(name.as_str());
            edit(&servers, |document| {
                if let Some(all) = document["servers"].as_table_like_mut() {
                    all.remove(&name);
                }
                if is_current {
                    document.remove("current");
                }
            })?;
            context.output.note(&format!("Removed {name}."));
        }
    }
    Ok(Outcome::Done)
}

fn list(servers: &ServersFile, context: &Context) -> Result<Outcome, Error> {
    let output = &context.output;
    let is_current = |name: &str| servers.current() == Some(name);
    if output.is_json() {
        for (name, entry) in servers.servers() {
            output.object(&serde_json::json!({
                "name": name,
                "address": entry.address,
                "current": is_current(name),
            }))?;
        }
        return Ok(Outcome::Done);
    }
    let text = |path: &Option<PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => String::new(),
    };
    let rows: Vec<Vec<String>> = servers
        .servers()
        .map(|(name, entry)| {
            let mark = if is_current(name) { "*" } else { "" };
            vec![
                mark.to_owned(),
                name.to_owned(),
                entry.address.clone(),
                text(&entry.ca),
                text(&entry.cert),
                text(&entry.token_file),
            ]
        })
        .collect();
    if rows.is_empty() {
        output.note("No servers; `visage servers add NAME ADDRESS` adds one.");
        return Ok(Outcome::Done);
    }
    let header = ["", "NAME", "ADDRESS", "CA", "CERTIFICATE", "TOKEN FILE"];
    table::print(output, &header, &rows)?;
    Ok(Outcome::Done)
}

fn check_exists(servers: &ServersFile, name: &str) -> Result<(), Error> {
    match servers.get(name) {
        Some(_) => Ok(()),
        None => Err(Error::Usage(format!(
            "no server `{name}`; `visage servers list` shows them"
        ))),
    }
}

/// The entry of a server, with absolute paths.
fn entry(address: &str, context: &Context) -> Result<Table, Error> {
    let flags = &context.flags;
    let mut entry = Table::new();
    entry["address"] = value(address);
    for (key, path) in [
        ("ca", &flags.ca),
        ("cert", &flags.cert),
        ("key", &flags.key),
        ("token_file", &flags.token_file),
    ] {
        if let Some(path) = path {
            let path = std::path::absolute(path).map_err(Error::CurrentDir)?;
            entry[key] = value(path.to_string_lossy().into_owned());
        }
    }
    Ok(entry)
}

/// Changes the file, comments and order kept, unless the result is not valid.
fn edit(servers: &ServersFile, change: impl FnOnce(&mut DocumentMut)) -> Result<(), Error> {
    let path = servers
        .path()
        .ok_or_else(|| Error::Usage("HOME must be set for the file of the servers".to_owned()))?;
    let text = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::File(error)),
    };
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error| Error::Usage(format!("{} is not valid TOML: {error}", path.display())))?;
    change(&mut document);
    let text = document.to_string();
    ServersFile::parse(path, &text)?;
    fs_err::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(Error::File)?;
    files::write_atomic(path, text.as_bytes()).map_err(Error::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_added_selected_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("visage/servers.toml");
        let read = || ServersFile::at(path.clone()).unwrap();
        let add = |name: &str, address: &str| {
            edit(&read(), |document| {
                document["servers"][name]["address"] = value(address);
            })
        };
        add("prod", "https://visage.example.org:50051").unwrap();
        add("test", "localhost:4000").unwrap();
        assert!(add("bad", "nowhere").is_err());
        edit(&read(), |document| document["current"] = value("test")).unwrap();
        let servers = read();
        assert_eq!(servers.current(), Some("test"));
        let names: Vec<&str> = servers.servers().map(|(name, _)| name).collect();
        assert_eq!(names, ["prod", "test"]);
        assert!(check_exists(&servers, "bad").is_err());
        // A current server without an entry is refused before it is written.
        assert!(edit(&servers, |document| document["current"] = value("gone")).is_err());
        assert_eq!(read().current(), Some("test"));
    }
}
