use std::io::{self, ErrorKind, Write};

use clap::{CommandFactory as _, Parser as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    cli::{
        error::Error,
        output::Output,
        program::{Cli, parser},
        tests::{Captured, fake::Fake, story::ended, visage},
    },
    config::SETTINGS,
    proto::v1::TrainingState,
    telemetry::logging::chain,
};

/// An address without a server.
const NOWHERE: &str = "http://127.0.0.1:1";

fn exit_code_of_arguments(arguments: &[&str]) -> i32 {
    Cli::try_parse_from([&["visage"], arguments].concat())
        .unwrap_err()
        .exit_code()
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for arguments in [
        &["train", "d", "--dataset", "d"][..],
        &["train", "d", "--init", "imagnet"],
        &["train", "--dataset", "d", "--label", "x"],
        &["train", "--dataset", "d", "--max-duration", "soon"],
        &["train", "--dataset", "d", "--promote", "maybe"],
        &["train", "--dataset", "d", "--set", "batch=1"],
        &["train", "--dataset", "d", "--detach", "--validate-only"],
        &["trainings", "list", "--state", "happy"],
        &["trainings", "list", "--watch=1ms"],
        &["trainings", "list", "--watch=often"],
        &["models", "list", "--watch=2h"],
        &["dataset", "uploads", "rm"],
        &["evaluate", "--split", "test"],
        &["synth", "d", "--ages", "80-18"],
        &["completions", "tcsh"],
        &["predict"],
        &["fly"],
    ] {
        assert_eq!(exit_code_of_arguments(arguments), 2, "{arguments:?}");
    }
    assert_eq!(exit_code_of_arguments(&["--help"]), 0);
    assert_eq!(exit_code_of_arguments(&["--version"]), 0);
}

#[test]
fn help_of_every_command_shows_examples_and_hides_the_worker() {
    fn check(command: &clap::Command, path: &str) {
        for below in command.get_subcommands() {
            if below.is_hide_set() || below.get_name() == "help" {
                continue;
            }
            let path = format!("{path} {}", below.get_name());
            let help = below.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{path}: {help}");
            let uses = help
                .lines()
                .filter(|line| line.trim_start().starts_with(&path));
            let shells = ["visage completions"];
            assert!(
                uses.count() > 0 || shells.contains(&path.as_str()),
                "{path}: {help}"
            );
            check(below, &path);
        }
    }
    check(&parser(), "visage");
    let help = parser().render_long_help().to_string();
    assert!(help.contains("Examples:"), "{help}");
    assert!(!help.contains("worker"), "{help}");
}

#[test]
fn every_setting_is_a_flag_of_serve() {
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let wrapped = serve.render_long_help().to_string();
    let help = wrapped.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in SETTINGS {
        let (flag, variable) = (setting.flag(), setting.variable());
        assert!(help.contains(&format!("--{flag}")), "{flag}");
        assert!(help.contains(&format!("[env: {variable}]")), "{variable}");
    }
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let stdout = Captured::default();
    let output = Output::new(Box::new(stdout.clone()), Box::new(io::sink()), false, false);
    output.line("a\u{1b}[2Jb\tc").unwrap();
    assert_eq!(stdout.text(), "a\u{fffd}[2Jb\tc\n");
}

#[test]
fn a_closed_stdout_ends_the_program_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stderr = Captured::default();
    let output = Output::new(Box::new(Closed), Box::new(stderr.clone()), false, false);
    let error = output.line("x").unwrap_err();
    assert!(matches!(error, Error::BrokenPipe));
    assert_eq!(output.fail(&error), 141);
    assert_eq!(stderr.text(), "");
}

#[tokio::test]
async fn without_a_server_the_exit_code_is_3_and_the_remedy_is_shown() {
    // Bound but not listening, so that no other process can take the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    let run = visage(&address, &["info"]).await;
    assert_eq!(run.code, 3);
    let start = format!("error: no server is reachable at {address} (");
    assert!(run.stderr.starts_with(&start), "{}", run.stderr);
    assert!(run.stderr.contains("`visage serve`"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[tokio::test]
async fn a_refusal_ends_with_1() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["trainings", "get", "absent"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: trainings/absent does not exist\n")
    );
}

#[tokio::test]
async fn the_http_port_is_recognized_and_the_grpc_port_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 24];
            stream.read_exact(&mut request).await.unwrap();
            // As a port without HTTP/2, which closes the connection.
            if request.starts_with(b"GET /readyz ") {
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let body = "{\"ready\":true,\"grpc_port\":4000,\"components\":[]}\n";
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
                let response = format!("{head}{body}");
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        }
    });
    let run = visage(&format!("http://{address}"), &["info"]).await;
    serving.abort();
    assert_eq!(
        (run.code, run.stderr),
        (
            3,
            format!(
                "error: http://{address} is the HTTP port of the server; commands need its gRPC \
                 port: --server 127.0.0.1:4000 or VISAGE_SERVER=127.0.0.1:4000\n"
            )
        )
    );
}

#[tokio::test]
async fn a_comparison_of_one_training_is_wrong_usage() {
    let run = visage("http://127.0.0.1:1", &["trainings", "compare", "only"]).await;
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("`visage trainings get only` shows one"),
        "{}",
        run.stderr
    );
}

#[test]
fn no_line_of_examples_is_broken_on_a_terminal_of_80_columns() {
    fn check(command: &clap::Command, path: &str) {
        let help = command.get_after_help().map(ToString::to_string);
        for line in help.unwrap_or_default().lines() {
            assert!(line.chars().count() <= 80, "{path}: {line}");
        }
        for below in command.get_subcommands() {
            check(below, &format!("{path} {}", below.get_name()));
        }
    }
    check(&parser(), "visage");
}

#[test]
fn an_error_repeats_no_cause() {
    #[derive(Debug, thiserror::Error)]
    #[error("encode image a.jpg")]
    struct Outer(#[source] io::Error);
    assert_eq!(
        chain(&Outer(io::Error::other("disk full"))),
        "encode image a.jpg: disk full"
    );
    assert_eq!(
        chain(&Error::File(io::Error::other("disk full"))),
        "disk full"
    );
}

#[tokio::test]
async fn config_shows_each_value_with_its_source() {
    let run = visage(NOWHERE, &["config", "--max-batch", "8"]).await;
    assert_eq!(run.code, 0);
    assert!(
        run.stdout.contains("# from: --max-batch\nmax_batch = 8\n"),
        "{}",
        run.stdout
    );
    let run = visage(NOWHERE, &["config", "--max-batch", "0"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    for (flag, value) in [("--starter", "true"), ("--starter=false", "false")] {
        // A switch does not consume the next argument.
        let run = visage(NOWHERE, &["config", flag, "--threads", "1"]).await;
        let line = format!("# from: --starter\nstarter = {value}\n");
        assert!(run.stdout.contains(&line), "{}", run.stdout);
    }
    let run = visage(NOWHERE, &["config", "--starter=perhaps"]).await;
    assert_eq!(run.code, 2);
    let run = visage(NOWHERE, &["config", "--json"]).await;
    assert_eq!(run.objects()[0]["max_batch"]["value"], 32);
}

#[tokio::test]
async fn synth_and_completions_need_no_server() {
    let run = visage(NOWHERE, &["completions", "bash"]).await;
    assert!(run.stdout.contains("_visage()"));
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("faces").display().to_string();
    let arguments = ["synth", &dir, "--count", "2", "--size", "32", "--json"];
    let run = visage(NOWHERE, &arguments).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let object = &run.objects()[0];
    assert_eq!(
        (&object["written"], &object["dir"]),
        (&2.into(), &dir.into())
    );
}

#[tokio::test]
async fn a_missing_dataset_is_wrong_usage() {
    for arguments in [&["train"][..], &["sweep", "--grid", "seed=1"]] {
        let run = visage(NOWHERE, arguments).await;
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(
            run.stderr.contains("a dataset is required: "),
            "{}",
            run.stderr
        );
    }
}

#[tokio::test]
async fn the_fields_of_the_spec_are_listed_without_a_server() {
    let run = visage(NOWHERE, &["train", "--fields"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let field = |name: &str| run.lines().into_iter().find(|line| line.starts_with(name));
    assert!(
        field("optimizer.learning_rate ")
            .unwrap()
            .ends_with("a number")
    );
    assert!(
        field("promote ")
            .unwrap()
            .ends_with("one of ALWAYS, IF_BETTER, NEVER")
    );
}

#[tokio::test]
async fn top_has_no_json() {
    assert_eq!(visage(NOWHERE, &["top", "--json"]).await.code, 2);
}

#[tokio::test]
async fn every_command_has_a_manual_page_with_its_examples() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("man1");
    let run = visage(NOWHERE, &["man", dir.to_str().unwrap()]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let page = |name: &str| fs_err::read_to_string(dir.join(format!("{name}.1"))).unwrap();
    for command in Cli::command().get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        let text = page(&format!("visage-{}", command.get_name()));
        assert!(text.starts_with(".ie"), "{text}");
        assert!(text.contains(".SH EXAMPLES\n.nf\n"), "{text}");
    }
    assert!(page("visage-trainings-pause").contains("visage trainings pause faces\\-2"));
    assert!(page("visage-models-alias-set").contains("visage models alias set canary 3"));
    assert!(!dir.join("visage-worker.1").exists());
    assert!(!dir.join("visage-trainings-help.1").exists());
}
