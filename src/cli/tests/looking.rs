//! Commands that look again and again, and what helps to use the others.

use clap::CommandFactory as _;

use crate::proto::v1::TrainingState;

use super::{
    super::{Cli, command},
    fake::{Fake, State},
    story::ended,
    visage,
};

#[tokio::test]
async fn watched_training_is_shown_until_it_has_ended() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let plain = visage(&server.url(), &["trainings", "get", "t"]).await;
    // It has ended already, so once is enough; and in a pipe nothing is wiped away.
    let watched = visage(&server.url(), &["trainings", "get", "t", "--watch=100ms"]).await;
    assert_eq!(watched.code, 0, "{}", watched.stderr);
    assert_eq!(watched.stdout, plain.stdout);
    let watched = visage(
        &server.url(),
        &["trainings", "get", "t", "--watch", "--json"],
    )
    .await;
    assert_eq!(watched.objects().len(), 1);
}

#[tokio::test]
async fn interval_of_watching_is_checked() {
    for arguments in [
        ["trainings", "list", "--watch=1ms"],
        ["trainings", "list", "--watch=often"],
        ["models", "list", "--watch=2h"],
    ] {
        let parsed = command().try_get_matches_from([&["visage"], &arguments[..]].concat());
        assert_eq!(parsed.unwrap_err().exit_code(), 2, "{arguments:?}");
    }
}

#[tokio::test]
async fn top_prints_one_look_where_there_is_no_terminal() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["top", "--once", "--interval", "100ms"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.starts_with("visage 0.1.0  127.0.0.1:"),
        "{}",
        run.stdout
    );
    for id in ["t0", "t1"] {
        let is_row = |line: &&str| line.split_whitespace().next() == Some(id);
        assert!(
            run.stdout.lines().any(|line| is_row(&line)),
            "{}",
            run.stdout
        );
    }
    assert!(
        run.stdout.contains("the server does not say where it is"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains('\u{1b}'));
    let run = visage(&server.url(), &["top", "--json"]).await;
    assert_eq!(run.code, 2, "{}", run.stdout);
}

#[tokio::test]
async fn log_level_is_shown_and_changed() {
    let server = Fake::start(State {
        log_level: std::sync::Mutex::new("info".to_owned()),
        ..State::default()
    });
    let run = visage(&server.url(), &["log-level"]).await;
    assert_eq!(run.stdout, "info\n");
    let run = visage(&server.url(), &["log-level", "debug"]).await;
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("debug\n", "It was info.\n")
    );
    let run = visage(&server.url(), &["log-level", "--json"]).await;
    assert_eq!(run.objects()[0]["directives"], "debug");
    let run = visage(&server.url(), &["log-level", "loud"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: directives: no such level\n")
    );
}

#[tokio::test]
async fn every_command_has_a_manual_page_with_its_examples() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("man1");
    let run = visage("http://127.0.0.1:1", &["man", dir.to_str().unwrap()]).await;
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
    assert!(page("visage-models-alias-set").contains("roll back"));
    assert!(!dir.join("visage-worker.1").exists());
    assert!(!dir.join("visage-trainings-help.1").exists());
}

#[test]
fn help_of_every_command_shows_examples() {
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
    check(&command(), "visage");
}
