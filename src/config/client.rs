//! The settings of the commands that call a server.

use std::path::PathBuf;

use super::{Environment, Error, Token, ValueSource, servers::ServersFile};

/// The default server of clients.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// Accepted values of `--server`.
const ADDRESSES: &str =
    "host:port, https://host:port, unix:/path, or the name of a server in servers.toml";

/// Settings of the commands that call a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    /// `http://host:port`, `https://host:port` or `unix:/path`.
    pub server: String,
    /// Certificates (PEM) of the authorities that the server's certificate must come from, instead
    /// of those of the system.
    pub ca: Option<PathBuf>,
    /// The client's certificate and key (PEM).
    pub identity: Option<ClientIdentity>,
    pub token: TokenSource,
    /// Coloured messages, unless `NO_COLOR` is set.
    pub color: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The token that the client sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum TokenSource {
    #[default]
    None,
    Variable(Token),
    File(PathBuf),
}

/// Values of the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFlags {
    pub server: Option<String>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
}

impl ClientConfig {
    /// Resolves the server from `--server`, else `VISAGE_SERVER`, else the current server of
    /// `servers.toml`, else [`DEFAULT_SERVER`]; completes `host:port` to a URL. The other values
    /// come from their flags, else their variables, else the entry of the server in
    /// `servers.toml`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid address or token, [`Error::UnknownVariable`] for a
    /// misspelt `VISAGE_*` variable, [`Error::Incomplete`] for a certificate without its key, and
    /// those of `servers.toml`.
    pub(crate) fn resolve(environment: &Environment, flags: ClientFlags) -> Result<Self, Error> {
        environment.check_names()?;
        let servers = ServersFile::read(environment)?;
        let selected = flags.server.as_deref().map_or_else(
            || {
                let variable = environment.get("VISAGE_SERVER");
                let source = ValueSource::Variable("VISAGE_SERVER".to_owned());
                let current = servers.current().map(|name| {
                    let file = servers.path().cloned().unwrap_or_default();
                    (name, ValueSource::File(file))
                });
                variable.map(|server| (server, source)).or(current)
            },
            |server| Some((server, ValueSource::Flag("--server".to_owned()))),
        );
        let (server, source) = selected.unwrap_or((DEFAULT_SERVER, ValueSource::Default));
        let entry = servers.get(server);
        let address = entry.map_or(server, |entry| entry.address.as_str());
        let address = parse_server(address).ok_or_else(|| Error::Invalid {
            setting: "server".to_owned(),
            source_name: source,
            value: server.to_owned(),
            allowed: ADDRESSES.to_owned(),
        })?;
        let entry = entry.cloned().unwrap_or_default();
        let path = |flag: Option<PathBuf>, variable: &str, entry: Option<PathBuf>| {
            let variable = || environment.get(variable).map(PathBuf::from);
            flag.or_else(variable).or(entry)
        };
        let cert = path(flags.cert, "VISAGE_CERT", entry.cert);
        let key = path(flags.key, "VISAGE_KEY", entry.key);
        Ok(Self {
            server: address,
            ca: path(flags.ca, "VISAGE_CA", entry.ca),
            identity: identity(cert, key)?,
            token: token(environment, flags.token_file, entry.token_file)?,
            color: environment.get("NO_COLOR").is_none(),
        })
    }
}

fn identity(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<ClientIdentity>, Error> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(ClientIdentity { cert, key })),
        (Some(_), None) => Err(Error::Incomplete {
            setting: "cert",
            required: "key",
        }),
        (None, Some(_)) => Err(Error::Incomplete {
            setting: "key",
            required: "cert",
        }),
    }
}

fn token(
    environment: &Environment,
    flag: Option<PathBuf>,
    entry: Option<PathBuf>,
) -> Result<TokenSource, Error> {
    if let Some(file) = flag {
        return Ok(TokenSource::File(file));
    }
    if let Some(text) = environment.get("VISAGE_TOKEN") {
        let token = Token::parse(text).ok_or_else(|| Error::Invalid {
            setting: "token".to_owned(),
            source_name: ValueSource::Variable("VISAGE_TOKEN".to_owned()),
            value: "***".to_owned(),
            allowed: "a token without spaces".to_owned(),
        })?;
        return Ok(TokenSource::Variable(token));
    }
    let variable = environment.get("VISAGE_TOKEN_FILE").map(PathBuf::from);
    Ok(variable
        .or(entry)
        .map_or(TokenSource::None, TokenSource::File))
}

/// The complete form of an address.
pub(super) fn parse_server(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return (path.starts_with('/') && path.len() > 1).then(|| format!("unix:{path}"));
    }
    let (scheme, bare) = text.split_once("://").unwrap_or(("http", text));
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let authority = bare.strip_suffix('/').unwrap_or(bare);
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host =
        !host.is_empty() && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace());
    if !is_host || port == 0 || (host.contains(':') && !is_bracketed) {
        return None;
    }
    Some(format!("{scheme}://{host}:{port}"))
}
