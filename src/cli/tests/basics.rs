use std::io::{self, ErrorKind, Write};

use clap::{CommandFactory as _, Parser as _};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    config::SETTINGS,
    proto::v1::{EpochMetrics, TrainingState},
    telemetry::logging::chain,
};

use super::{
    super::{
        Cli,
        error::{Error, describe},
        output::Output,
        report,
    },
    Kept,
    fake::Fake,
    story::ended,
    visage,
};

fn exit_code_of_arguments(arguments: &[&str]) -> i32 {
    Cli::try_parse_from([&["visage"], arguments].concat())
        .unwrap_err()
        .exit_code()
}

#[test]
fn the_arguments_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    for arguments in [
        &["train"][..],
        &["train", "--dataset", "d", "--label", "x"],
        &["train", "--dataset", "d", "--max-duration", "soon"],
        &["train", "--dataset", "d", "--promote", "maybe"],
        &["train", "--dataset", "d", "--detach", "--validate-only"],
        &["trainings", "list", "--state", "happy"],
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
fn help_shows_examples_and_hides_the_worker() {
    let help = Cli::command().render_long_help().to_string();
    assert!(
        help.contains("Examples:") && !help.contains("worker"),
        "{help}"
    );
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        let has_examples = help.contains("Examples:") || command.get_name() == "worker";
        assert!(has_examples, "{}", command.get_name());
    }
}

#[test]
fn every_setting_is_a_flag_of_serve() {
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let wrapped = serve.render_long_help().to_string();
    let help = wrapped.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in SETTINGS {
        assert!(
            help.contains(&format!("--{}", setting.flag())),
            "{}",
            setting.name
        );
        assert!(
            help.contains(&format!("[env: {}]", setting.variable())),
            "{}",
            setting.name
        );
    }
}

#[test]
fn the_epoch_line_begins_as_promised() {
    let metrics = EpochMetrics {
        epoch: 1,
        max_epochs: 10,
        train_loss: 580.886_31,
        val_loss: 184.574_28,
        val_rmse: 13.585_8,
        val_mae: 10.204,
        images_per_second: 24.07,
        eta: Some(prost_types::Duration {
            seconds: 130,
            nanos: 400_000_000,
        }),
        ..EpochMetrics::default()
    };
    assert_eq!(
        report::epoch_line(&metrics),
        "Epoch 1/10, Training Loss: 580.8863, Validation Loss: 184.5743, RMSE: 13.59, MAE: 10.20, 24.1 images/s, ETA 2m10s"
    );
    let last = EpochMetrics {
        epoch: 10,
        eta: None,
        skipped_images: 3,
        ..metrics
    };
    let line = report::epoch_line(&last);
    assert!(
        line.starts_with("Epoch 10/10, ") && line.ends_with("24.1 images/s, 3 images skipped"),
        "{line}"
    );
}

#[test]
fn durations_and_sizes_are_short() {
    let text = |millis| report::duration_text(std::time::Duration::from_millis(millis));
    assert_eq!(text(450), "450ms");
    assert_eq!(text(59_600), "1m00s");
    assert_eq!(text(130_000), "2m10s");
    assert_eq!(text(11_100_000), "3h05m");
    assert_eq!(report::size_text(1023), "1023 B");
    assert_eq!(report::size_text(46_872_166), "44.7 MiB");
}

#[test]
fn a_refusal_shows_every_violation_and_when_to_try_again() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("spec.max_epochs", "must be 1 to 10,000, is 0");
    details.add_bad_request_violation("spec.dataset.path", "is required");
    details.set_retry_info(Some(std::time::Duration::from_secs(2)));
    let status =
        Status::with_error_details(Code::InvalidArgument, "the spec has 2 faults", details);
    assert_eq!(
        describe(&status),
        "the spec has 2 faults\n  spec.max_epochs: must be 1 to 10,000, is 0\n  spec.dataset.path: is required\n  try again in 2s"
    );
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let stdout = Kept::default();
    let output = Output::new(Box::new(stdout.clone()), Box::new(io::sink()), false, false);
    output.line("a\u{1b}[2Jb\tc").unwrap();
    assert_eq!(stdout.text(), "a\u{fffd}[2Jb\tc\n");
}

#[test]
fn a_reader_that_has_left_ends_the_program_quietly() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stderr = Kept::default();
    let output = Output::new(Box::new(Gone), Box::new(stderr.clone()), false, false);
    let error = output.line("x").unwrap_err();
    assert!(matches!(error, Error::BrokenPipe));
    assert_eq!(output.fail(&error), 141);
    assert_eq!(stderr.text(), "");
}

#[tokio::test]
async fn without_a_server_the_exit_code_is_3_and_says_what_to_start() {
    // Bound but not listening: nobody answers here, and nobody else can take the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    let run = visage(&address, &["info"]).await;
    assert_eq!(run.code, 3);
    assert!(
        run.stderr
            .starts_with(&format!("error: no server answers at {address} (")),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("`visage serve`"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[tokio::test]
async fn a_refusal_ends_with_1() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["trainings", "get", "absent"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: there is no trainings/absent\n")
    );
}

#[test]
fn an_error_says_its_causes_once() {
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
async fn local_commands_need_no_server() {
    let run = visage("http://127.0.0.1:1", &["config", "--max-batch", "8"]).await;
    assert_eq!(run.code, 0);
    assert!(
        run.stdout.contains("# from: --max-batch\nmax_batch = 8\n"),
        "{}",
        run.stdout
    );
    let run = visage("http://127.0.0.1:1", &["config", "--max-batch", "0"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    for (flag, value) in [("--starter", "true"), ("--starter=false", "false")] {
        // A switch takes nothing of what follows.
        let run = visage("http://127.0.0.1:1", &["config", flag, "--threads", "1"]).await;
        let line = format!("# from: --starter\nstarter = {value}\n");
        assert!(run.stdout.contains(&line), "{}", run.stdout);
    }
    let run = visage("http://127.0.0.1:1", &["config", "--starter=perhaps"]).await;
    assert_eq!(run.code, 2);
    let run = visage("http://127.0.0.1:1", &["config", "--json"]).await;
    assert_eq!(run.objects()[0]["max_batch"]["value"], 32);
    let run = visage("http://127.0.0.1:1", &["completions", "bash"]).await;
    assert!(run.stdout.contains("_visage()"));
}
