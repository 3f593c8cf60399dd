//! The contents of the token file: who is known, by which credential.
//!
//! ```toml
//! version = 1
//!
//! [[token]]
//! name = "ci"
//! hash = "sha256:…"
//! roles = ["trainer"]
//! expires = 2027-06-30T00:00:00Z
//! limits = { calls = 64, calls_per_second = 200 }
//!
//! [[user]]
//! name = "ada"
//! password = "$argon2id$…"
//! roles = ["admin"]
//!
//! [[certificate]]
//! subject = "dns:prometheus.example.org"
//! roles = ["metrics"]
//! ```

use std::{collections::HashMap, time::SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Identity, Limits, Role, Roles, password::PasswordHash, token::TokenHash};

/// Longest name of an identity in bytes.
const MAX_NAME: usize = 64;
/// The start of names of users of an OpenID Connect issuer, which no entry of the file may have.
pub(super) const OIDC_PREFIX: &str = "oidc:";
/// The kinds of names of certificates. A name without one is a DNS name or a common name.
const SUBJECT_PREFIXES: [&str; 4] = ["cn:", "dns:", "uri:", "email:"];

/// The known clients.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    tokens: HashMap<TokenHash, Known>,
    users: HashMap<String, (PasswordHash, Known)>,
    /// By subject.
    certificates: HashMap<String, Known>,
}

/// An entry of the file.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) roles: Roles,
    pub(super) limits: Limits,
    pub(super) expires: Option<SystemTime>,
    revoked: CancellationToken,
}

impl Known {
    pub(super) fn identity(&self) -> Identity {
        Identity::new(
            self.name.clone(),
            self.roles,
            self.limits,
            self.expires,
            self.revoked.clone(),
        )
    }

    fn has_rights_of(&self, other: &Self) -> bool {
        self.name == other.name
            && self.roles == other.roles
            && self.limits == other.limits
            && self.expires == other.expires
    }
}

/// A mistake in the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mistake {
    /// Without the line of the file, which may have a secret.
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("version must be 1, got {0}")]
    Version(i64),
    #[error("{table} {name:?}: {field} must be {rule}, got {value:?}")]
    Value {
        table: &'static str,
        name: String,
        field: &'static str,
        rule: &'static str,
        value: String,
    },
    #[error("{table} {name:?} exists twice; rename or remove one of them")]
    Twice { table: &'static str, name: String },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: i64,
    #[serde(default)]
    token: Vec<TokenEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    certificate: Vec<CertificateEntry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    hash: String,
    roles: Vec<String>,
    expires: Option<toml::value::Datetime>,
    #[serde(default)]
    limits: Limits,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    password: String,
    roles: Vec<String>,
    #[serde(default)]
    limits: Limits,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateEntry {
    subject: String,
    roles: Vec<String>,
    #[serde(default)]
    limits: Limits,
}

impl Credentials {
    pub(super) fn parse(text: &str) -> Result<Self, Mistake> {
        let file: File = toml::from_str(text).map_err(|error| Mistake::Syntax {
            line: line_of(text, error.span()),
            message: error.message().to_owned(),
        })?;
        if file.version != 1 {
            return Err(Mistake::Version(file.version));
        }
        let mut read = Self::default();
        let mut names = Names::default();
        for entry in file.token {
            names.add("token", &entry.name)?;
            let name = entry.name.clone();
            let hash = TokenHash::parse(&entry.hash).ok_or_else(|| {
                let rule = "`sha256:` and 64 hexadecimal digits";
                // It may be the token itself.
                wrong("token", &name, "hash", rule, "another text")
            })?;
            let expires = entry.expires.map(|time| {
                let text = time.to_string();
                let rule = "a time in UTC such as 2027-06-30T00:00:00Z";
                humantime::parse_rfc3339(&text)
                    .map_err(|_| wrong("token", &name, "expires", rule, &text))
            });
            let known = Known {
                roles: roles("token", &name, &entry.roles)?,
                name: entry.name,
                limits: entry.limits,
                expires: expires.transpose()?,
                revoked: CancellationToken::new(),
            };
            if read.tokens.insert(hash, known).is_some() {
                return Err(Mistake::Twice {
                    table: "the hash of token",
                    name,
                });
            }
        }
        for entry in file.user {
            names.add("user", &entry.name)?;
            let password = PasswordHash::parse(&entry.password).ok_or_else(|| {
                let rule = "a hash of `visage token user`, `$argon2id$…` with at most 256 MiB, 16 passes and 16 lanes";
                wrong("user", &entry.name, "password", rule, "another text")
            })?;
            let known = Known {
                roles: roles("user", &entry.name, &entry.roles)?,
                name: entry.name.clone(),
                limits: entry.limits,
                expires: None,
                revoked: CancellationToken::new(),
            };
            read.users.insert(entry.name, (password, known));
        }
        for entry in file.certificate {
            names.add("certificate", &entry.subject)?;
            let known = Known {
                roles: roles("certificate", &entry.subject, &entry.roles)?,
                name: entry.subject.clone(),
                limits: entry.limits,
                expires: None,
                revoked: CancellationToken::new(),
            };
            read.certificates.insert(entry.subject, known);
        }
        Ok(read)
    }

    pub(super) fn token(&self, hash: TokenHash) -> Option<&Known> {
        self.tokens.get(&hash)
    }

    pub(super) fn user(&self, name: &str) -> Option<&(PasswordHash, Known)> {
        self.users.get(name)
    }

    pub(super) fn certificate(&self, subject: &str) -> Option<&Known> {
        self.certificates.get(subject)
    }

    /// An administrator's token or user exists.
    pub(super) fn has_admin(&self) -> bool {
        self.all().any(|known| known.roles.has(Role::Admin))
    }

    fn all(&self) -> impl Iterator<Item = &Known> {
        let users = self.users.values().map(|(_, known)| known);
        self.tokens
            .values()
            .chain(users)
            .chain(self.certificates.values())
    }

    /// Takes over from the previous contents: entries with the same credential and rights keep
    /// their open streams, those of all others are ended.
    pub(super) fn replace(&mut self, previous: &Self) {
        for (hash, known) in &previous.tokens {
            keep_or_revoke(known, self.tokens.get_mut(hash));
        }
        for (name, (password, known)) in &previous.users {
            let same = self.users.get_mut(name).filter(|(new, _)| new == password);
            keep_or_revoke(known, same.map(|(_, known)| known));
        }
        for (subject, known) in &previous.certificates {
            keep_or_revoke(known, self.certificates.get_mut(subject));
        }
    }
}

fn keep_or_revoke(previous: &Known, new: Option<&mut Known>) {
    match new {
        Some(new) if new.has_rights_of(previous) => new.revoked = previous.revoked.clone(),
        _ => previous.revoked.cancel(),
    }
}

/// The number of the line in which a mistake is, from 1.
pub(super) fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    let before = text.as_bytes().iter().take(start);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// The names that the file has used.
#[derive(Default)]
struct Names(std::collections::HashSet<(&'static str, String)>);

impl Names {
    fn add(&mut self, table: &'static str, name: &str) -> Result<(), Mistake> {
        let (field, rule) = if table == "certificate" {
            let rule = "1 to 64 bytes without control characters: a DNS name or common name, or a name after `cn:`, `dns:`, `uri:` or `email:`";
            ("subject", rule)
        } else {
            let rule = "1 to 64 bytes without control characters that do not start with `oidc:`";
            ("name", rule)
        };
        let is_valid = match name.split_once(':') {
            Some((_, rest)) if table == "certificate" => {
                let prefix = &name[..name.len() - rest.len()];
                SUBJECT_PREFIXES.contains(&prefix) && !rest.is_empty()
            }
            _ => !name.starts_with(OIDC_PREFIX),
        };
        let is_text = !name.is_empty() && !name.chars().any(char::is_control);
        if name.len() > MAX_NAME || !is_text || !is_valid {
            return Err(wrong(table, name, field, rule, name));
        }
        if !self.0.insert((table, name.to_owned())) {
            return Err(Mistake::Twice {
                table,
                name: name.to_owned(),
            });
        }
        Ok(())
    }
}

fn roles(table: &'static str, name: &str, names: &[String]) -> Result<Roles, Mistake> {
    let rule = "metrics, viewer, predictor, trainer, deployer or admin";
    let parse =
        |role: &String| Role::parse(role).ok_or_else(|| wrong(table, name, "roles", rule, role));
    names.iter().map(parse).collect()
}

fn wrong(
    table: &'static str,
    name: &str,
    field: &'static str,
    rule: &'static str,
    value: &str,
) -> Mistake {
    Mistake::Value {
        table,
        name: name.to_owned(),
        field,
        rule,
        value: value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tokens: &[(&str, &str, &str)]) -> Credentials {
        let mut text = "version = 1\n".to_owned();
        for (name, token, rest) in tokens {
            let hash = TokenHash::of(token);
            text += &format!("[[token]]\nname = {name:?}\nhash = \"{hash}\"\n{rest}\n");
        }
        Credentials::parse(&text).unwrap()
    }

    #[test]
    fn tokens_have_names_roles_limits_and_an_end() {
        let read = file(&[(
            "ci",
            "secret",
            "roles = [\"trainer\", \"metrics\"]\nexpires = 2027-06-30T12:00:00Z\nlimits = { calls = 4 }",
        )]);
        let known = read.token(TokenHash::of("secret")).unwrap();
        assert_eq!(known.name, "ci");
        assert_eq!(
            known.roles.to_string(),
            "metrics, viewer, predictor, trainer"
        );
        assert_eq!(known.limits.calls, Some(4));
        // `date -d 2027-06-30T12:00:00Z +%s`
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_814_356_800);
        assert_eq!(known.expires, Some(end));
        assert!(read.token(TokenHash::of("other")).is_none());
        assert!(!read.has_admin());
    }

    #[test]
    fn mistakes_name_the_entry_and_the_field() {
        let hash = TokenHash::of("x").to_string();
        let token = |rest: &str| format!("version = 1\n[[token]]\nname = \"ci\"\n{rest}");
        let cases = [
            ("version = 2".to_owned(), "version must be 1, got 2"),
            (token("hash = \"abc\"\nroles = []"), "token \"ci\": hash must be `sha256:`"),
            (token("hash = canary\nroles = []"), "line 4: "),
            (token("hash = \"canary\"\nroles = []"), "got \"another text\""),
            ("version = 1\n[[certificate]]\nsubject = \"spiffe://a\"\nroles = []".to_owned(), "`uri:` or `email:`"),
            ("version = 1\n[[token]]\nname = \"oidc:ada\"\nhash = \"\"\nroles = []".to_owned(), "do not start with `oidc:`"),
            (token(&format!("hash = \"{hash}\"\nroles = [\"root\"]")), "roles must be metrics, viewer"),
            (token(&format!("hash = \"{hash}\"\nroles = []\nexpires = 2027-06-30")), "expires must be a time in UTC"),
            (token(&format!("hash = \"{hash}\"\nroles = []\nrole = 1")), "unknown field `role`"),
            (
                "version = 1\n[[certificate]]\nsubject = \"a\"\nroles = []\n[[certificate]]\nsubject = \"a\"\nroles = []".to_owned(),
                "certificate \"a\" exists twice",
            ),
        ];
        for (text, expected) in cases {
            let message = Credentials::parse(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn a_change_ends_the_streams_of_revoked_and_changed_entries_only() {
        let viewer = "roles = [\"viewer\"]";
        let old = file(&[("a", "1", viewer), ("b", "2", viewer), ("c", "3", viewer)]);
        let mut new = file(&[("a", "1", viewer), ("b", "2", "roles = [\"metrics\"]")]);
        new.replace(&old);
        let revoked = |token: &str| {
            old.token(TokenHash::of(token))
                .unwrap()
                .revoked
                .is_cancelled()
        };
        assert!(!revoked("1"));
        assert!(revoked("2"));
        assert!(revoked("3"));
        // A later change still ends the streams that began before.
        let mut last = file(&[]);
        last.replace(&new);
        assert!(revoked("1"));
    }
}
