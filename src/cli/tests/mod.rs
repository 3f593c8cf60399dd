//! Commands against a server whose responses, errors and disconnections the tests choose.
//!
//! Behaviour that the real server shows is tested in `tests/`.

// Help, exit codes and local commands.
mod basics;
// Verified downloads.
mod downloading;
// The server of the tests.
mod fake;
// Broken event streams.
mod following;
// Groups of images, and bad images among them.
mod predicting;
// A training with its settings, and its deletion.
mod showing;
// Full queues, repeated calls, and failed trainings.
mod starting;
// The events of the trainings of these tests.
mod story;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;

use crate::{
    cli::{
        client::RetryPolicy,
        context::Context,
        output::Output,
        program::{Cli, run},
    },
    config::{ClientConfig, ClientFlags, Environment, TokenSource},
};

/// Result of a command.
struct Run {
    code: u8,
    stdout: String,
    stderr: String,
}

impl Run {
    fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Each line of stdout as JSON.
    fn objects(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A stream that keeps its bytes.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Retries almost immediately, with short timeouts.
fn fast_retry() -> RetryPolicy {
    RetryPolicy {
        initial_delay: Duration::from_millis(2),
        max_delay: Duration::from_millis(20),
        call_timeout: Duration::from_secs(10),
        stream_timeout: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(20),
    }
}

/// The context of a command for `server`, with its stdout and stderr.
fn context(server: &str, json: bool, retry: RetryPolicy) -> (Context, Captured, Captured) {
    let (stdout, stderr) = (Captured::default(), Captured::default());
    let output = Output::new(
        Box::new(stdout.clone()),
        Box::new(stderr.clone()),
        json,
        false,
    );
    let context = Context {
        environment: Environment::default(),
        client: ClientConfig {
            server: server.to_owned(),
            ca: None,
            identity: None,
            token: TokenSource::None,
            color: false,
        },
        flags: ClientFlags::default(),
        retry,
        output,
    };
    (context, stdout, stderr)
}

async fn visage_with(server: &str, retry: RetryPolicy, arguments: &[&str]) -> Run {
    let cli = Cli::try_parse_from([&["visage"], arguments].concat()).unwrap();
    let (mut context, stdout, stderr) = context(server, cli.global.json, retry);
    let code = match run(cli.command, &mut context).await {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => context.output.fail(&error),
    };
    Run {
        code,
        stdout: stdout.text(),
        stderr: stderr.text(),
    }
}

async fn visage(server: &str, arguments: &[&str]) -> Run {
    visage_with(server, fast_retry(), arguments).await
}

/// The numbers of the printed epochs.
fn epochs(lines: &[&str]) -> Vec<u32> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("Epoch ")?.split_once('/')?.0.parse().ok())
        .collect()
}

const TEN: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
