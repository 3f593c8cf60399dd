//! Precedence, checks and the texts people see.

use std::{path::Path, time::Duration};

use super::{
    Device, Environment, Error, Flags, LogLevel, Resolved, SETTINGS, ValueSource, load,
    markdown_table, resolve::resolve, value::parse_bytes,
};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let mut all = Environment::default();
    for (name, value) in variables {
        all.insert(name, value);
    }
    all
}

fn flags(values: &[(&'static str, &str)]) -> Flags {
    values
        .iter()
        .map(|(name, value)| (*name, vec![(*value).to_owned()]))
        .collect()
}

fn resolved(
    variables: &[(&str, &str)],
    given: &[(&'static str, &str)],
    file: &str,
) -> Result<Resolved, Error> {
    let path = Path::new("visage.toml");
    resolve(
        &environment(variables),
        &flags(given),
        Some((path, file)),
        Path::new("/srv"),
    )
}

#[test]
fn later_sources_win_and_are_named() {
    let file = "max_batch = 4\nmax_queued_images = 100\nlog_level = \"warn\"";
    let variables = [("VISAGE_MAX_BATCH", "8"), ("VISAGE_LOG_LEVEL", "debug")];
    let resolved = resolved(&variables, &[("max_batch", "16")], file).unwrap();
    assert_eq!(resolved.config.max_batch, 16);
    assert_eq!(resolved.config.max_queued_images, 100);
    assert_eq!(resolved.config.log_level, LogLevel::Debug);
    assert_eq!(resolved.config.max_restarts, 3);
    let source = |name| resolved.source(name).to_string();
    assert_eq!(source("max_batch"), "--max-batch");
    assert_eq!(source("log_level"), "VISAGE_LOG_LEVEL");
    assert_eq!(source("max_queued_images"), "visage.toml");
    assert_eq!(source("max_restarts"), "default");
}

#[test]
fn a_switch_is_true_or_false_in_every_source() {
    let starter = |variables: &[(&str, &str)], given: &[(&'static str, &str)], file| {
        resolved(variables, given, file).map(|resolved| resolved.config.starter)
    };
    assert!(!starter(&[], &[], "").unwrap());
    assert!(starter(&[], &[], "starter = true").unwrap());
    assert!(starter(&[], &[], "starter = \"true\"").unwrap());
    assert!(!starter(&[("VISAGE_STARTER", "false")], &[], "starter = true").unwrap());
    assert!(starter(&[("VISAGE_STARTER", "false")], &[("starter", "true")], "").unwrap());
    for (file, value) in [("starter = 1", "1"), ("starter = \"yes\"", "yes")] {
        let error = starter(&[], &[], file).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`starter` from visage.toml is `{value}`, expected true or false")
        );
    }
    // A switch that is on by default can be turned off.
    let dashboard = |file| resolved(&[], &[], file).unwrap().config.dashboard;
    assert!(dashboard(""));
    assert!(!dashboard("dashboard = false"));
    // A Boolean is not a path.
    assert!(starter(&[], &[], "data_dir = true").is_err());
}

#[test]
fn the_share_of_traced_requests_is_a_number_from_0_to_1() {
    let ratio = |file: &str| resolved(&[], &[], file).map(|found| found.config.trace_sample_ratio);
    assert_eq!(ratio("").unwrap(), 0.01);
    assert_eq!(ratio("trace_sample_ratio = 0.5").unwrap(), 0.5);
    assert_eq!(ratio("trace_sample_ratio = 1").unwrap(), 1.0);
    assert_eq!(ratio("trace_sample_ratio = \"0.25\"").unwrap(), 0.25);
    for wrong in ["1.5", "-0.1", "nan", "true"] {
        let error = ratio(&format!("trace_sample_ratio = {wrong}")).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("expected a number from 0 to 1"), "{text}");
    }
}

#[test]
fn collector_of_traces_is_an_address_with_its_scheme() {
    let endpoint = |given| {
        let variables = [("VISAGE_OTLP_ENDPOINT", given)];
        resolved(&variables, &[], "").map(|found| found.config.otlp_endpoint)
    };
    assert_eq!(endpoint("").unwrap(), None);
    let expected = Some("http://[::1]:4317".to_owned());
    assert_eq!(endpoint("http://[::1]:4317/").unwrap(), expected);
    let expected = Some("https://collector:4317".to_owned());
    assert_eq!(endpoint("https://collector:4317").unwrap(), expected);
    for wrong in [
        "collector:4317",
        "http://collector",
        "ftp://collector:4317",
        "http://a:1/v1/traces",
        "http://user@a:1",
        "http://:4317",
    ] {
        assert!(endpoint(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_setting() {
    let error = resolved(&[], &[], "max_bacth = 4").unwrap_err();
    assert_eq!(
        error.to_string(),
        "visage.toml: unknown setting `max_bacth`; did you mean `max_batch`?"
    );
}

#[test]
fn an_unknown_variable_names_the_nearest_one() {
    let error = environment(&[("VISAGE_GRPC_LISTN", "x")])
        .check_names()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown variable `VISAGE_GRPC_LISTN`; did you mean `VISAGE_GRPC_LISTEN`?"
    );
    environment(&[("VISAGE_SERVER", "a:1"), ("VISAGE_CONFIG", "x.toml")])
        .check_names()
        .unwrap();
}

#[test]
fn variables_of_kubernetes_services_are_ignored() {
    environment(&[
        ("VISAGE_SERVICE_HOST", "10.0.0.1"),
        ("VISAGE_SERVICE_PORT_GRPC", "50051"),
        ("VISAGE_PORT", "tcp://10.0.0.1:50051"),
        ("VISAGE_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ])
    .check_names()
    .unwrap();
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let resolved = resolved(&[("VISAGE_READY_FILE", "")], &[], "").unwrap();
    assert_eq!(resolved.config.ready_file, None);
    assert_eq!(resolved.source("ready_file"), &ValueSource::Default);
}

#[test]
fn an_error_names_setting_source_value_and_what_is_allowed() {
    let error = resolved(&[("VISAGE_MAX_BATCH", "many")], &[], "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`max_batch` from VISAGE_MAX_BATCH is `many`, expected an integer from 1 to 4096"
    );
    let error = resolved(&[], &[], "heartbeat_interval = 15").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`heartbeat_interval` from visage.toml is `15`, expected a duration from 100ms to 10m such as \"15s\" or \"500ms\""
    );
}

#[test]
fn a_reachable_listener_needs_authentication_and_tls() {
    let listen = ("grpc_listen", "0.0.0.0:50051");
    let text = |flags: &[(&'static str, &str)]| {
        let flags = [&[listen], flags].concat();
        resolved(&[], &flags, "").unwrap_err().to_string()
    };
    assert!(text(&[]).contains("`grpc_listen` is 0.0.0.0:50051"));
    assert!(text(&[]).contains("--auth tokens"));
    assert!(text(&[("auth", "off")]).contains("--insecure-no-auth"));
    let tokens = ("auth", "tokens");
    assert!(text(&[tokens]).contains("credentials need TLS"));
    assert!(text(&[tokens, ("insecure_plaintext", "true")]).contains("--data-roots"));
    let tls = [("tls_cert", "cert.pem"), ("tls_key", "key.pem")];
    assert!(text(&[tokens, tls[0]]).contains("`tls_cert` requires `tls_key`"));
    assert!(text(&[tokens, tls[0], tls[1]]).contains("--data-roots"));
    assert!(text(&[("auth", "certificates"), tls[0], tls[1]]).contains("`tls_client_ca`"));
    assert!(text(&[("auth", "oidc"), tls[0], tls[1]]).contains("`oidc_issuer`"));
    let origins = text(&[("auth", "tokens"), ("cors_origins", "*")]);
    assert!(origins.contains("must name origins"), "{origins}");
    let error = resolved(&[], &[("auth", "passwords")], "").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("expected off, or one or more of"),
        "{error}"
    );
}

#[test]
fn a_reachable_listener_needs_named_roots() {
    let listen = ("grpc_listen", "0.0.0.0:50051");
    let no_auth = ("insecure_no_auth", "true");
    let error = resolved(&[], &[listen, no_auth], "").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`grpc_listen` is 0.0.0.0:50051") && text.contains("--data-roots"),
        "{text}"
    );
    let error = resolved(&[], &[listen, no_auth, ("data_roots", "/data")], "").unwrap_err();
    assert!(error.to_string().contains("--weights-roots"), "{error}");
    let roots = "data_roots = [\"/data\", \"more\"]\nweights_roots = [\"/weights\"]";
    let config = resolved(&[], &[listen, no_auth], roots).unwrap().config;
    assert_eq!(
        config.data_roots,
        [Path::new("/data"), Path::new("/srv/more")]
    );
    let config = resolved(&[], &[("grpc_listen", "[::1]:0")], "")
        .unwrap()
        .config;
    let expected = ["/srv", "/tmp", "/data", "/mnt", "/media"].map(Path::new);
    assert_eq!(config.data_roots, expected);
    let config = resolved(&[("HOME", "/")], &[], "").unwrap().config;
    assert_eq!(config.data_roots, expected);
    let variables = [("HOME", "/home/a"), ("TMPDIR", "/scratch")];
    let config = resolved(&variables, &[], "").unwrap().config;
    let expected = ["/srv", "/home/a", "/scratch", "/data", "/mnt", "/media"].map(Path::new);
    assert_eq!(config.weights_roots, expected);
    let config = resolved(&variables, &[("auth", "tokens")], "")
        .unwrap()
        .config;
    assert!(config.data_roots.is_empty() && config.weights_roots.is_empty());
}

#[test]
fn contradictions_are_refused_with_both_sources() {
    let error = resolved(
        &[("VISAGE_MAX_QUEUED_IMAGES", "16")],
        &[("max_images_per_request", "8")],
        "",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`max_batch` = 32 (default) must not be above `max_queued_images` = 16 (VISAGE_MAX_QUEUED_IMAGES)"
    );
    for (given, culprit) in [
        (("max_images_per_request", "257"), "max_images_per_request"),
        (("max_image_bytes", "17MiB"), "max_image_bytes"),
        (("worker_stall_timeout", "14s"), "worker_silence_timeout"),
        (("http_listen", "127.0.0.1:50051"), "http_listen"),
    ] {
        let error = resolved(&[], &[given], "").unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("`{culprit}`")),
            "{error}"
        );
    }
}

#[test]
fn durations_and_sizes_are_read_with_their_units() {
    let given = [
        ("heartbeat_interval", "500ms"),
        ("worker_stall_timeout", "1h 30m"),
        ("max_message_bytes", "32MiB"),
        ("max_image_bytes", "1_000_000"),
    ];
    let config = resolved(&[], &given, "").unwrap().config;
    assert_eq!(config.heartbeat_interval, Duration::from_millis(500));
    assert_eq!(config.worker_stall_timeout, Duration::from_secs(5400));
    assert_eq!(config.max_message_bytes, 33_554_432);
    assert_eq!(config.max_image_bytes, 1_000_000);
    for (text, bytes) in [
        ("5", 5),
        ("5B", 5),
        ("2 kB", 2000),
        ("2KiB", 2048),
        ("3m", 3_145_728),
    ] {
        assert_eq!(parse_bytes(text), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "1.5MiB", "-1", "99999999999GiB"] {
        assert_eq!(parse_bytes(text), None, "{text}");
    }
}

#[test]
fn lists_come_as_arrays_commas_words_or_several_flags() {
    let config = resolved(
        &[
            ("VISAGE_WORKER_LAUNCHER", "nice -n 10"),
            ("VISAGE_DATA_ROOTS", "/a,/b"),
        ],
        &[("weights_roots", "[\"/with,comma\"]")],
        "",
    )
    .unwrap()
    .config;
    assert_eq!(config.worker_launcher, ["nice", "-n", "10"]);
    assert_eq!(config.data_roots, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(config.weights_roots, [Path::new("/with,comma")]);
    let several = Flags::from([("data_roots", vec!["/a".to_owned(), "/b,c".to_owned()])]);
    let config = resolve(&Environment::default(), &several, None, Path::new("/"))
        .unwrap()
        .config;
    assert_eq!(config.data_roots, [Path::new("/a"), Path::new("/b,c")]);
    assert!(resolved(&[], &[("data_roots", "[]")], "").is_err());
}

#[test]
fn devices_are_auto_cpu_or_a_gpu() {
    for (text, device) in [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("cuda:1", Device::Cuda(1)),
    ] {
        assert_eq!(
            resolved(&[], &[("device", text)], "")
                .unwrap()
                .config
                .device,
            device
        );
    }
    for text in ["cuda", "cuda:", "cuda:-1", "cuda:+1", "gpu"] {
        assert!(resolved(&[], &[("device", text)], "").is_err(), "{text}");
    }
}

#[test]
fn printed_settings_can_be_read_again() {
    let given = [
        ("device", "cuda:1"),
        ("max_message_bytes", "20MiB"),
        ("worker_launcher", "nice -n 10"),
    ];
    let first = resolved(&[("VISAGE_READY_FILE", "ready")], &given, "").unwrap();
    let printed = first.to_toml();
    assert!(
        printed.contains("# from: --device\ndevice = \"cuda:1\""),
        "{printed}"
    );
    let second = resolved(&[], &[], &printed).unwrap();
    assert_eq!(first.config, second.config);
    let json = first.to_json();
    assert_eq!(json["max_message_bytes"]["value"], "20MiB");
    assert_eq!(json["ready_file"]["source"], "VISAGE_READY_FILE");
}

#[test]
fn the_file_is_found_named_or_missing() {
    let directory = tempfile::tempdir().unwrap();
    let none = Environment::default();
    let at = |file: Option<&str>, environment: &Environment| {
        load(
            environment,
            &Flags::new(),
            file.map(Path::new),
            directory.path(),
        )
    };
    assert_eq!(at(None, &none).unwrap().config.max_batch, 32);
    fs_err::write(directory.path().join("visage.toml"), "max_batch = 2").unwrap();
    fs_err::write(directory.path().join("other.toml"), "max_batch = 3").unwrap();
    assert_eq!(at(None, &none).unwrap().config.max_batch, 2);
    let named = environment(&[("VISAGE_CONFIG", "other.toml")]);
    assert_eq!(at(None, &named).unwrap().config.max_batch, 3);
    assert_eq!(at(Some("visage.toml"), &named).unwrap().config.max_batch, 2);
    let error = at(Some("absent.toml"), &none).unwrap_err();
    assert!(error.to_string().contains("absent.toml"), "{error}");
}

#[test]
fn the_hub_follows_the_variables_of_other_programs() {
    let hub = resolved(&[("HOME", "/home/a")], &[], "")
        .unwrap()
        .config
        .hub;
    assert_eq!(
        hub.cache_dir.as_deref(),
        Some(Path::new("/home/a/.cache/huggingface/hub"))
    );
    assert_eq!(
        hub.torch_home.as_deref(),
        Some(Path::new("/home/a/.cache/torch/hub/checkpoints"))
    );
    assert!(!hub.offline);
    let variables = [
        ("HF_HOME", "/hf"),
        ("HF_ENDPOINT", "https://mirror.example/"),
        ("HF_TOKEN", "secret"),
        ("HF_HUB_OFFLINE", "1"),
        ("TORCH_HOME", "/torch"),
    ];
    let hub = resolved(&variables, &[], "").unwrap().config.hub;
    assert_eq!(hub.endpoint, "https://mirror.example");
    assert_eq!(hub.cache_dir.as_deref(), Some(Path::new("/hf/hub")));
    assert!(hub.offline && !format!("{hub:?}").contains("secret"));
    assert!(resolved(&[("HF_ENDPOINT", "mirror")], &[], "").is_err());
}

#[test]
fn origins_have_the_form_that_browsers_send() {
    let origins = |value: &str| {
        resolved(&[("VISAGE_CORS_ORIGINS", value)], &[], "")
            .map(|resolved| resolved.config.cors_origins)
    };
    assert_eq!(origins("*").unwrap(), ["*"]);
    assert_eq!(
        origins("https://example.org, http://localhost:5173").unwrap(),
        ["https://example.org", "http://localhost:5173"]
    );
    for bad in [
        "example.org",
        "https://",
        "https://example.org/",
        "https://example.org/page",
        "https://*.example.org",
        "https://me@example.org",
        "ftp://example.org",
        "null",
    ] {
        let error = origins(bad).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "`cors_origins` from VISAGE_CORS_ORIGINS is `{bad}`, expected `*`, or origins"
            )),
            "{error}"
        );
    }
}

#[test]
fn every_setting_is_in_the_table_and_has_a_default_that_is_allowed() {
    let table = markdown_table();
    for setting in SETTINGS {
        assert!(table.contains(&format!(
            "| `{}` | `{}` |",
            setting.name,
            setting.variable()
        )));
        assert!(!setting.doc.is_empty());
    }
    assert!(
        table.contains("| `--heartbeat-interval` | `15s` |"),
        "{table}"
    );
    assert!(
        table.contains("| `--max-image-bytes` | `16MiB` |"),
        "{table}"
    );
    let printed = resolved(&[], &[], "").unwrap().to_toml();
    resolved(&[], &[], &printed).unwrap();
}
