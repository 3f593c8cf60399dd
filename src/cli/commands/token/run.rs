use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::json;

use super::{
    args::{Args, Command, FileArgs, Rights},
    password::read_password,
};
use crate::{
    access::{self, NewCredential, NewEntry},
    cli::{
        args::paths::current_dir,
        context::{Context, Outcome},
        error::Error,
        output::table,
    },
    config::{Flags, load},
};

/// Shortest accepted password in characters.
const MIN_PASSWORD: usize = 8;

pub(crate) fn run(args: &Args, context: &Context) -> Result<Outcome, Error> {
    let path = token_file(&args.file, context)?;
    match &args.command {
        Command::New {
            name,
            rights,
            expires,
        } => {
            let mut entry = entry(name, rights, NewCredential::Token);
            if let Some(expires) = expires {
                let end = SystemTime::now().checked_add(*expires);
                let too_long = || Error::Usage("--expires must be at most 10000 years".to_owned());
                entry.expires = Some(end.ok_or_else(too_long)?);
            }
            let token = add(&path, entry)?.unwrap_or_default();
            match context.output.is_json() {
                true => context
                    .output
                    .object(&json!({ "name": name, "token": token }))?,
                false => context.output.line(&token)?,
            }
            context.output.note(&format!(
                "Added {name} to {}, which has a hash of the token only: store the token now.",
                path.display()
            ));
        }
        Command::User { name, rights } => {
            let password = read_password().map_err(Error::File)?;
            if password.chars().count() < MIN_PASSWORD {
                let message = format!("the password must have at least {MIN_PASSWORD} characters");
                return Err(Error::Usage(message));
            }
            add(
                &path,
                entry(name, rights, NewCredential::Password(password)),
            )?;
            added(context, name, &path);
        }
        Command::Certificate { subject, rights } => {
            add(&path, entry(subject, rights, NewCredential::Certificate))?;
            added(context, subject, &path);
        }
        Command::List => list(&path, context)?,
        Command::Revoke { name } => {
            if access::revoke(&path, name).map_err(token_error)? == 0 {
                let message = format!(
                    "{} has no entry {name:?}; `visage token list` shows all",
                    path.display()
                );
                return Err(Error::Usage(message));
            }
            context.output.note(&format!(
                "Revoked {name}. A running server ends its calls within 5 seconds."
            ));
        }
    }
    Ok(Outcome::Done)
}

fn token_file(args: &FileArgs, context: &Context) -> Result<PathBuf, Error> {
    let mut flags = Flags::new();
    for (setting, value) in [
        ("tokens_file", &args.tokens_file),
        ("data_dir", &args.data_dir),
    ] {
        if let Some(path) = value {
            flags.insert(setting, vec![path.to_string_lossy().into_owned()]);
        }
    }
    let resolved = load(
        &context.environment,
        &flags,
        args.config.as_deref(),
        &current_dir()?,
    )?;
    let config = resolved.config;
    Ok(config
        .tokens_file
        .unwrap_or_else(|| config.data_dir.join("tokens.toml")))
}

fn entry(name: &str, rights: &Rights, credential: NewCredential) -> NewEntry {
    NewEntry {
        name: name.to_owned(),
        roles: rights.roles.clone(),
        expires: None,
        limits: rights.limits(),
        credential,
    }
}

fn add(path: &Path, entry: NewEntry) -> Result<Option<String>, Error> {
    access::add(path, &entry).map_err(token_error)
}

fn token_error(error: access::TokenFileError) -> Error {
    Error::Usage(error.to_string())
}

fn added(context: &Context, name: &str, path: &Path) {
    context
        .output
        .note(&format!("Added {name} to {}.", path.display()));
}

fn list(path: &Path, context: &Context) -> Result<(), Error> {
    let listed = access::list(path).map_err(token_error)?;
    let output = &context.output;
    if output.is_json() {
        for entry in &listed {
            output.object(&json!({
                "kind": entry.kind,
                "name": entry.name,
                "roles": entry.roles,
                "expires": entry.expires,
            }))?;
        }
        return Ok(());
    }
    if listed.is_empty() {
        output.note(&format!(
            "{} has no entries; add one with `visage token new NAME --role ROLE`.",
            path.display()
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = listed
        .into_iter()
        .map(|entry| {
            vec![
                entry.name,
                entry.kind.to_owned(),
                entry.roles.join(", "),
                entry.expires.unwrap_or_else(|| "never".to_owned()),
            ]
        })
        .collect();
    table::print(output, &["NAME", "KIND", "ROLES", "EXPIRES"], &rows)
}
