//! Settings of clients.

use std::path::{Path, PathBuf};

use super::{ClientConfig, ClientFlags, Environment, Error, Token, TokenSource};

/// An environment with a home directory.
fn environment(home: &Path, variables: &[(&str, &str)]) -> Environment {
    let mut environment = Environment::default();
    environment.insert("HOME", home.to_str().unwrap());
    for (name, value) in variables {
        environment.insert(name, value);
    }
    environment
}

fn with_servers(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/visage");
    fs_err::create_dir_all(&directory).unwrap();
    fs_err::write(directory.join("servers.toml"), text).unwrap();
    home
}

fn flags(server: Option<&str>) -> ClientFlags {
    ClientFlags {
        server: server.map(str::to_owned),
        ..ClientFlags::default()
    }
}

#[test]
fn a_server_is_an_address_or_host_and_port() {
    let home = tempfile::tempdir().unwrap();
    let server = |variables: &[(&str, &str)], flag| {
        ClientConfig::resolve(&environment(home.path(), variables), flags(flag))
            .map(|client| client.server)
    };
    assert_eq!(server(&[], None).unwrap(), "http://127.0.0.1:50051");
    let variables = [("VISAGE_SERVER", "gpu-box:50051")];
    assert_eq!(server(&variables, None).unwrap(), "http://gpu-box:50051");
    for (given, expected) in [
        ("http://[::1]:7/", "http://[::1]:7"),
        ("https://gpu-box:443", "https://gpu-box:443"),
        ("unix:/run/visage.sock", "unix:/run/visage.sock"),
        ("unix:///run/visage.sock", "unix:/run/visage.sock"),
    ] {
        assert_eq!(server(&variables, Some(given)).unwrap(), expected);
    }
    for bad in [
        "gpu-box",
        "ftp://gpu-box:1",
        "a:b:1",
        "http://a:1/path",
        ":1",
        "a:0",
        "unix:visage.sock",
        "unix:/",
    ] {
        assert!(server(&[], Some(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_named_server_brings_its_credentials() {
    let home = with_servers(
        "current = \"prod\"\n\
         [servers.prod]\naddress = \"https://visage.example.org:50051\"\nca = \"ca.pem\"\ntoken_file = \"/run/token\"\n\
         [servers.test]\naddress = \"localhost:4000\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n",
    );
    let resolve = |variables: &[(&str, &str)], flags| {
        ClientConfig::resolve(&environment(home.path(), variables), flags).unwrap()
    };
    let current = resolve(&[], flags(None));
    assert_eq!(current.server, "https://visage.example.org:50051");
    let directory = home.path().join(".config/visage");
    assert_eq!(current.ca, Some(directory.join("ca.pem")));
    assert_eq!(current.token, TokenSource::File("/run/token".into()));
    let test = resolve(&[("VISAGE_SERVER", "test")], flags(None));
    assert_eq!(test.server, "http://localhost:4000");
    assert_eq!(test.identity.unwrap().key, directory.join("k.pem"));
    assert_eq!((test.ca, test.token), (None, TokenSource::None));
    // The credentials of one server are not for another.
    let other = resolve(&[], flags(Some("localhost:50051")));
    assert_eq!((other.ca, other.token), (None, TokenSource::None));
    // Flags override variables, and these the file.
    let variables = [("VISAGE_CA", "variable.pem"), ("VISAGE_TOKEN", "secret")];
    let overridden = resolve(&variables, flags(Some("prod")));
    assert_eq!(overridden.ca, Some(PathBuf::from("variable.pem")));
    assert_eq!(
        overridden.token,
        TokenSource::Variable(Token::parse("secret").unwrap())
    );
    let given = ClientFlags {
        ca: Some("flag.pem".into()),
        token_file: Some("flag.token".into()),
        ..ClientFlags::default()
    };
    let overridden = resolve(&variables, given);
    assert_eq!(overridden.ca, Some(PathBuf::from("flag.pem")));
    assert_eq!(overridden.token, TokenSource::File("flag.token".into()));
}

#[test]
fn mistakes_in_servers_toml_are_reported() {
    let refused = |text: &str| {
        let home = with_servers(text);
        ClientConfig::resolve(&environment(home.path(), &[]), flags(None)).unwrap_err()
    };
    let missing = refused("current = \"prod\"").to_string();
    assert!(missing.contains("`prod` has no entry"), "{missing}");
    let misspelt = refused("[servers.a]\naddress = \"a:1\"\ntoken = \"x\"");
    assert!(matches!(misspelt, Error::Syntax { .. }), "{misspelt}");
    let address = refused("[servers.a]\naddress = \"a\"");
    assert!(matches!(address, Error::Server { .. }), "{address}");
}

#[test]
fn a_certificate_needs_its_key_and_tokens_are_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let resolve = |variables: &[(&str, &str)]| {
        ClientConfig::resolve(&environment(home.path(), variables), flags(None))
    };
    let incomplete = resolve(&[("VISAGE_CERT", "c.pem")]).unwrap_err();
    assert_eq!(incomplete.to_string(), "`cert` requires `key`; set it too");
    let variables = [("VISAGE_TOKEN", "vsg_hidden")];
    let client = resolve(&variables).unwrap();
    assert!(!format!("{client:?}").contains("hidden"));
    let environment = environment(home.path(), &variables);
    assert!(!format!("{environment:?}").contains("hidden"));
    let wrong = resolve(&[("VISAGE_TOKEN", "vsg hidden")]).unwrap_err();
    assert!(!wrong.to_string().contains("hidden"), "{wrong}");
}
