//! Parses and displays values.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    AuthMethods, Device, Location, LogFormat, LogLevel, Precision, ServeConfig, settings::Field,
};

/// A value as its source has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawValue {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    List(Vec<String>),
    /// A TOML value of a type that no setting accepts.
    Other(String),
}

impl RawValue {
    /// The value for an error message.
    pub(super) fn display(&self) -> String {
        match self {
            Self::Text(text) | Self::Other(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(items) => format!("{items:?}"),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Some(text.trim()),
            Self::Text(_)
            | Self::Integer(_)
            | Self::Number(_)
            | Self::Boolean(_)
            | Self::List(_)
            | Self::Other(_) => None,
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Integer(_) | Self::Number(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    /// An integer, optionally with `_` or `,` between digits.
    fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Text(text) => text.trim().replace(['_', ','], "").parse().ok(),
            Self::Number(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Boolean(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    /// A list: a TOML array, several flags, a JSON array in a text, or a text split at `separator`.
    fn list(&self, separator: fn(char) -> bool) -> Option<Vec<String>> {
        match self {
            Self::List(items) if items.len() != 1 => Some(items.clone()),
            Self::List(items) => Self::Text(items[0].clone()).list(separator),
            Self::Text(text) if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).ok()
            }
            Self::Text(text) => Some(
                text.split(separator)
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            Self::Integer(_) | Self::Number(_) | Self::Boolean(_) | Self::Other(_) => None,
        }
    }
}

/// A value for output.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DisplayValue {
    Text(String),
    Integer(u64),
    Number(f64),
    Boolean(bool),
    List(Vec<String>),
    Unset,
}

impl Field {
    /// Checks and sets the value; relative paths start at `current_dir`. `None` if it is not
    /// allowed.
    pub(super) fn set(
        &self,
        config: &mut ServeConfig,
        raw: &RawValue,
        current_dir: &Path,
    ) -> Option<()> {
        let absolute = |text: &str| -> PathBuf { current_dir.join(text).components().collect() };
        match self {
            Self::Path(get) => *get(config) = absolute(raw.text()?),
            Self::OptionalPath(get) => *get(config) = Some(absolute(raw.text()?)),
            Self::Paths(get) => {
                let items = raw.list(|c| c == ',')?;
                if items.is_empty() || items.iter().any(String::is_empty) {
                    return None;
                }
                *get(config) = items.iter().map(|item| absolute(item)).collect();
            }
            Self::Words(get) => *get(config) = raw.list(char::is_whitespace)?,
            Self::Origins(get) => {
                let items = raw.list(|c| c == ',')?;
                if !items.iter().all(|item| is_origin(item)) {
                    return None;
                }
                *get(config) = items;
            }
            Self::Hosts(get) => {
                let items = raw.list(|c| c == ',')?;
                if !items.iter().all(|item| is_host(item)) {
                    return None;
                }
                *get(config) = items;
            }
            Self::Networks(get) => {
                let items = raw.list(|c| c == ',')?;
                *get(config) = items
                    .iter()
                    .map(|item| parse_network(item))
                    .collect::<Option<_>>()?;
            }
            Self::Auth(get) => {
                *get(config) = AuthMethods::parse(&raw.list(|c| c == ',')?)?;
            }
            Self::Text(get) => *get(config) = Some(raw.text()?.to_owned()),
            Self::Address(get) => *get(config) = parse_address(raw.text()?)?,
            Self::Count(range, get) => {
                let number = u32::try_from(raw.integer()?).ok()?;
                *get(config) = within(range, number)?;
            }
            Self::Pixels(range, get) => *get(config) = within(range, raw.integer()?)?,
            Self::Bytes(range, get) => {
                let bytes = match raw {
                    RawValue::Text(text) => parse_bytes(text)?,
                    RawValue::Integer(_)
                    | RawValue::Number(_)
                    | RawValue::Boolean(_)
                    | RawValue::List(_)
                    | RawValue::Other(_) => raw.integer()?,
                };
                *get(config) = within(range, usize::try_from(bytes).ok()?)?;
            }
            Self::Duration(range, get) => {
                let duration = humantime::parse_duration(raw.text()?).ok()?;
                *get(config) = within(range, duration)?;
            }
            Self::Location(get) => {
                *get(config) = match raw.text()? {
                    "on" => Location::InDataDir,
                    "off" => Location::Off,
                    path => Location::At(absolute(path)),
                };
            }
            Self::Switch(get) => *get(config) = raw.boolean()?,
            Self::Device(get) => *get(config) = parse_device(raw.text()?)?,
            Self::Precision(get) => *get(config) = Precision::parse(raw.text()?)?,
            Self::LogLevel(get) => *get(config) = LogLevel::parse(raw.text()?)?,
            Self::LogFormat(get) => *get(config) = LogFormat::parse(raw.text()?)?,
            Self::Endpoint(get) => *get(config) = Some(parse_endpoint(raw.text()?)?),
            Self::Share(get) => *get(config) = within(&(0.0..=1.0), raw.number()?)?,
        }
        Some(())
    }

    /// The value in `config`, which is `&mut` because the table has one accessor for reading and
    /// writing.
    pub(super) fn display(&self, config: &mut ServeConfig) -> DisplayValue {
        let path_text = |path: &PathBuf| path.display().to_string();
        match self {
            Self::Path(get) => DisplayValue::Text(path_text(get(config))),
            Self::OptionalPath(get) => get(config).as_ref().map_or(DisplayValue::Unset, |path| {
                DisplayValue::Text(path_text(path))
            }),
            Self::Paths(get) => DisplayValue::List(get(config).iter().map(path_text).collect()),
            Self::Words(get) | Self::Origins(get) | Self::Hosts(get) => {
                DisplayValue::List(get(config).clone())
            }
            Self::Networks(get) => {
                DisplayValue::List(get(config).iter().map(ToString::to_string).collect())
            }
            Self::Auth(get) => match get(config).names() {
                names if names.is_empty() => DisplayValue::Text("off".to_owned()),
                names => DisplayValue::List(names),
            },
            Self::Text(get) => get(config)
                .clone()
                .map_or(DisplayValue::Unset, DisplayValue::Text),
            Self::Address(get) => DisplayValue::Text(get(config).to_string()),
            Self::Count(_, get) => DisplayValue::Integer(u64::from(*get(config))),
            Self::Pixels(_, get) => DisplayValue::Integer(*get(config)),
            Self::Bytes(_, get) => format_bytes(*get(config)),
            Self::Duration(_, get) => DisplayValue::Text(format_duration(*get(config))),
            Self::Location(get) => DisplayValue::Text(get(config).to_string()),
            Self::Switch(get) => DisplayValue::Boolean(*get(config)),
            Self::Device(get) => DisplayValue::Text(get(config).to_string()),
            Self::LogLevel(get) => DisplayValue::Text(get(config).as_str().to_owned()),
            Self::Precision(get) => DisplayValue::Text(get(config).as_str().to_owned()),
            Self::LogFormat(get) => DisplayValue::Text(get(config).as_str().to_owned()),
            Self::Endpoint(get) => get(config)
                .clone()
                .map_or(DisplayValue::Unset, DisplayValue::Text),
            Self::Share(get) => DisplayValue::Number(*get(config)),
        }
    }

    /// The allowed values, as a phrase after "expected".
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Path(_) | Self::OptionalPath(_) => "a path".to_owned(),
            Self::Paths(_) => {
                "one or more paths: an array in the file, else separated by commas".to_owned()
            }
            Self::Words(_) => {
                "words: an array in the file, else separated by spaces or as a JSON array"
                    .to_owned()
            }
            Self::Origins(_) => {
                "`*`, or origins such as https://example.org or http://localhost:5173 without a path: an array in the file, else separated by commas".to_owned()
            }
            Self::Hosts(_) => {
                "`*`, or names such as visage.example.org or visage:50051 without a scheme and path: an array in the file, else separated by commas".to_owned()
            }
            Self::Networks(_) => {
                "addresses such as 10.1.2.3 or networks such as 10.0.0.0/8: an array in the file, else separated by commas".to_owned()
            }
            Self::Auth(_) => {
                "off, or one or more of tokens, certificates and oidc: an array in the file, else separated by commas".to_owned()
            }
            Self::Text(_) => "a text".to_owned(),
            Self::Address(_) => {
                "an IP address and port such as 127.0.0.1:50051 or [::]:50051".to_owned()
            }
            Self::Count(range, _) => {
                format!("an integer from {} to {}", range.start(), range.end())
            }
            Self::Pixels(range, _) => {
                format!("an integer from {} to {}", range.start(), range.end())
            }
            Self::Bytes(range, _) => format!(
                "bytes from {} to {} such as 1048576 or \"16MiB\"",
                bytes_text(*range.start()),
                bytes_text(*range.end())
            ),
            Self::Duration(range, _) => format!(
                "a duration from {} to {} such as \"15s\" or \"500ms\"",
                format_duration(*range.start()),
                format_duration(*range.end())
            ),
            Self::Location(_) => "on, off or a path".to_owned(),
            Self::Switch(_) => "true or false".to_owned(),
            Self::Device(_) => "auto, cpu or cuda:N".to_owned(),
            Self::Precision(_) => Precision::ALL.map(Precision::as_str).join(", "),
            Self::LogLevel(_) => LogLevel::ALL.map(LogLevel::as_str).join(", "),
            Self::LogFormat(_) => LogFormat::ALL.map(LogFormat::as_str).join(", "),
            Self::Endpoint(_) => "http://host:port or https://host:port".to_owned(),
            Self::Share(_) => "a number from 0 to 1".to_owned(),
        }
    }
}

fn within<T: PartialOrd + Copy>(range: &RangeInclusive<T>, value: T) -> Option<T> {
    range.contains(&value).then_some(value)
}

/// `localhost` means 127.0.0.1: a name that resolves to several addresses cannot be one listener.
fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// An address, or a network in CIDR notation.
fn parse_network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

/// Accepts `*`, or an origin as browsers send it: scheme, host and port, without a path.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let is_authority = !authority.contains(['/', '@', '?', '#', '*'])
        && authority.parse::<http::uri::Authority>().is_ok();
    matches!(scheme, "http" | "https") && is_authority
}

/// Accepts `*`, or a host with or without a port.
fn is_host(text: &str) -> bool {
    let is_authority =
        !text.contains(['/', '@', '*']) && text.parse::<http::uri::Authority>().is_ok();
    text == "*" || is_authority
}

/// `http://host:port` or `https://host:port`, optionally with a trailing slash.
fn parse_endpoint(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let is_known = matches!(scheme, "http" | "https");
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let parsed: http::uri::Authority = authority.parse().ok()?;
    let is_whole = is_known && !authority.contains('@') && !parsed.host().is_empty();
    let port = parsed.port_u16().filter(|port| *port > 0);
    (is_whole && port.is_some()).then(|| format!("{scheme}://{authority}"))
}

fn parse_device(text: &str) -> Option<Device> {
    match text {
        "auto" => Some(Device::Auto),
        "cpu" => Some(Device::Cpu),
        _ => {
            let number = text.strip_prefix("cuda:")?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number {
                return None;
            }
            number.parse().ok().map(Device::Cuda)
        }
    }
}

/// Units of sizes, longest suffix first so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 10] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("b", 1),
];

/// A size: an integer, optionally with `B`, `kB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`,
/// `GiB`, `K`, `M`, `G` (powers of 1024).
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((lower.strip_suffix(suffix)?, *unit)))
        .unwrap_or((lower.as_str(), 1));
    let number: u64 = digits.trim_end().replace('_', "").parse().ok()?;
    number.checked_mul(unit)
}

fn format_bytes(bytes: usize) -> DisplayValue {
    match bytes % 1024 {
        0 if bytes > 0 => DisplayValue::Text(bytes_text(bytes)),
        _ => DisplayValue::Integer(bytes as u64),
    }
}

fn bytes_text(bytes: usize) -> String {
    for (suffix, unit) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return format!("{}{suffix}", bytes / unit);
        }
    }
    bytes.to_string()
}

fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
