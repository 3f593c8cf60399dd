//! The lines that `visage serve` prints on a terminal once the server is ready.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use crate::{config::DEFAULT_SERVER, server::Ready};

pub(super) fn lines(ready: &Ready, data_dir: &Path) -> Vec<String> {
    let title = match ready.has_dashboard {
        true => "Dashboard",
        false => "HTTP",
    };
    let (scheme, server) = match ready.is_tls {
        true => ("https", format!("https://{}", reachable(ready.grpc))),
        false => ("http", reachable(ready.grpc).to_string()),
    };
    let mut rows = vec![
        (title, format!("{scheme}://{}/", reachable(ready.http))),
        ("gRPC", server.clone()),
        ("Data", data_dir.display().to_string()),
        (
            "Live model",
            match &ready.live {
                Some(version) => version.clone(),
                None => "none; `visage models register starter` adds the built-in face model, \
                         `visage train DIRECTORY` trains one"
                    .to_owned(),
            },
        ),
    ];
    if format!("http://{server}") != DEFAULT_SERVER {
        rows.push((
            "Commands",
            format!("need --server {server} or VISAGE_SERVER={server}"),
        ));
    }
    let heading = format!(
        "Visage {} is ready; Ctrl-C stops it.",
        env!("CARGO_PKG_VERSION")
    );
    let rows = rows
        .iter()
        .map(|(label, text)| format!("  {label:<10}  {text}"));
    // Apart from the lines of the log before and after.
    let blank = || std::iter::once(String::new());
    blank()
        .chain([heading])
        .chain(rows)
        .chain(blank())
        .collect()
}

/// An address that a program on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        false => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_dashboard_the_data_and_the_way_to_a_model() {
        let mut ready = Ready {
            grpc: "127.0.0.1:50051".parse().unwrap(),
            http: "0.0.0.0:50052".parse().unwrap(),
            is_tls: false,
            live: None,
            has_dashboard: true,
        };
        let data = Path::new("/var/lib/visage");
        let all = lines(&ready, data);
        assert_eq!((all[0].as_str(), all[all.len() - 1].as_str()), ("", ""));
        let text = all.join("\n");
        for part in [
            "  Dashboard   http://127.0.0.1:50052/",
            "  gRPC        127.0.0.1:50051",
            "  Data        /var/lib/visage",
            "  Live model  none; `visage models register starter` adds",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("--server"), "{text}");
        ready.live = Some("models/age/versions/2".to_owned());
        ready.grpc = "127.0.0.1:4000".parse().unwrap();
        ready.has_dashboard = false;
        let text = lines(&ready, data).join("\n");
        assert!(
            text.contains("  Live model  models/age/versions/2"),
            "{text}"
        );
        assert!(text.contains("need --server 127.0.0.1:4000"), "{text}");
        assert!(text.contains("  HTTP        http://"), "{text}");
        ready.is_tls = true;
        let text = lines(&ready, data).join("\n");
        assert!(
            text.contains("  HTTP        https://127.0.0.1:50052/"),
            "{text}"
        );
        assert!(
            text.contains("need --server https://127.0.0.1:4000"),
            "{text}"
        );
    }
}
