//! The commands against a server that speaks the API and remembers what it was asked.

// What is printed and how programs end, whatever they were asked.
mod basics;
// Figures of versions, and plots.
mod evaluating;
// The server of the tests.
mod fake;
mod fake_models;
// Streams that break.
mod following;
// Commands that look again and again, help, and manual pages.
mod looking;
// Groups of images and bad ones among them.
mod predicting;
// Trainings and models, their lists and downloads.
mod resources;
// What `train` asks for, and how its end is told.
mod starting;
// What happens in a training of the tests.
mod story;
// Many trainings by one command.
mod sweeping;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;

use crate::config::{ClientConfig, Environment};

use super::{Cli, Context, client::Patience, output::Output, run};

/// What a run of the program left behind.
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

/// A stream that keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries again at once and gives up soon.
fn patience() -> Patience {
    Patience {
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        call: Duration::from_secs(10),
        stream: Duration::from_secs(30),
        silence: Duration::from_secs(20),
    }
}

/// The context of a run against `server`, and its two streams.
fn context(server: &str, json: bool, patience: Patience) -> (Context, Kept, Kept) {
    let (stdout, stderr) = (Kept::default(), Kept::default());
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
            color: false,
        },
        patience,
        output,
    };
    (context, stdout, stderr)
}

async fn visage_with(server: &str, patience: Patience, arguments: &[&str]) -> Run {
    let cli = Cli::try_parse_from([&["visage"], arguments].concat()).unwrap();
    let (mut context, stdout, stderr) = context(server, cli.global.json, patience);
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
    visage_with(server, patience(), arguments).await
}

/// The numbers of the epochs whose lines were printed.
fn epochs(lines: &[&str]) -> Vec<u32> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("Epoch ")?.split_once('/')?.0.parse().ok())
        .collect()
}

const TEN: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
