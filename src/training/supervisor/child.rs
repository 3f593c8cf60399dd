//! One worker process: its pipes, its signs of life, its end.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use prost::Message;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::proto::worker_v1::{
    CancelCommand, Job, PauseCommand, StopCommand, UpdateCommand, WorkerCommand, WorkerEvent,
    worker_command, worker_event,
};
use crate::telemetry::traces;
use crate::training::frames::MAX_FRAME;

use super::orphans;

/// Longer lines of the worker's log are cut, in bytes.
const LONGEST_LOG_LINE: usize = 4_096;

/// glibc's allocator keeps what a step frees for the next one. By default it gives blocks of many megabytes back to the kernel at once, which has to
/// clear the pages again: 15 % of the time of an epoch over images. Other allocators ignore this.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
];

/// Lines of the worker's log that are passed on in a second.
const MOST_LOG_LINES: u32 = 200;

/// A running worker. Dropping it kills the process.
pub(super) struct Worker {
    process: Child,
    pid: u32,
    events: FramedRead<ChildStdout, LengthDelimitedCodec>,
    commands: Option<FramedWrite<ChildStdin, LengthDelimitedCodec>>,
    log: JoinHandle<()>,
    watch: Watch,
}

/// When the worker was last known to live and to get something done.
struct Watch {
    silence_timeout: Duration,
    stall_timeout: Duration,
    heard: Instant,
    advanced: Instant,
    ticks: u64,
}

/// What came from the worker.
pub(super) enum Heard {
    /// An event other than a sign of life.
    Event(Box<worker_event::Kind>),
    /// Its end of the pipe is closed.
    Closed,
}

/// Why a worker is not to be listened to any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the process wrote something that is no message of the worker protocol: {0}")]
    Protocol(String),
    #[error("the process gave no sign of life for {0:?}")]
    Silent(Duration),
    #[error("the process lives but got nothing done for {0:?}")]
    Stalled(Duration),
}

impl Worker {
    /// Starts a process and sends it its job.
    pub(super) async fn start(
        launcher: &[String],
        job: Job,
        silence_timeout: Duration,
        stall_timeout: Duration,
    ) -> io::Result<Self> {
        let named = std::env::current_exe()?;
        let program = runnable(&named);
        let mut command = match launcher.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
            None => {
                let mut command = Command::new(&program);
                // For `ps`: it says which program this is although it was replaced.
                command.arg0(&named);
                command
            }
        };
        let mut process = command
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(ALLOCATOR)
            .kill_on_drop(true)
            // Of its own, so that Ctrl-C in the server's terminal reaches the server alone, and a launcher's children end with it.
            .process_group(0)
            .spawn()?;
        let pid = process
            .id()
            .ok_or_else(|| io::Error::other("the process ended at once"))?;
        orphans::remember(Path::new(&job.work_dir), pid)?;
        let (stdin, stdout, stderr) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let missing = || io::Error::other("the process has no pipes");
        let training = job.training.clone();
        let mut worker = Worker {
            process,
            pid,
            events: FramedRead::new(stdout.ok_or_else(missing)?, codec()),
            commands: Some(FramedWrite::new(stdin.ok_or_else(missing)?, codec())),
            log: tokio::spawn(traces::instrument(
                traces::current(),
                forward_log(stderr.ok_or_else(missing)?, training),
            )),
            watch: Watch::new(silence_timeout, stall_timeout),
        };
        worker.send(worker_command::Kind::Job(job)).await;
        Ok(worker)
    }

    /// Asks the training to end early.
    pub(super) async fn stop(&mut self) {
        self.send(worker_command::Kind::Stop(StopCommand {})).await;
    }

    /// Asks the training to give up.
    pub(super) async fn cancel(&mut self) {
        self.send(worker_command::Kind::Cancel(CancelCommand {}))
            .await;
    }

    /// Asks the training to keep all it has and end.
    pub(super) async fn pause(&mut self) {
        self.send(worker_command::Kind::Pause(PauseCommand {}))
            .await;
    }

    /// Changes the spec from the next epoch on.
    pub(super) async fn update(&mut self, update: UpdateCommand) {
        self.send(worker_command::Kind::Update(update)).await;
    }

    /// Waits for the next event. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Heard, Broken> {
        loop {
            let deadline = self.watch.deadline();
            let frame = tokio::time::timeout_at(deadline, self.events.next()).await;
            let frame = match frame {
                Err(_) => return Err(self.watch.verdict()),
                Ok(None) => return Ok(Heard::Closed),
                Ok(Some(Err(error))) => return Err(Broken::Protocol(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            let event =
                WorkerEvent::decode(frame).map_err(|error| Broken::Protocol(error.to_string()))?;
            self.watch.hear(event.kind.as_ref());
            match event.kind {
                None => return Err(Broken::Protocol("an empty event".to_owned())),
                Some(worker_event::Kind::Beat(_)) => {}
                Some(kind) => return Ok(Heard::Event(Box::new(kind))),
            }
        }
    }

    /// Closes the pipe, which asks the process to end, waits for it, and kills it when it takes too long.
    pub(super) async fn end(mut self, grace: Duration) -> Option<ExitStatus> {
        self.commands = None;
        match tokio::time::timeout(grace, self.drain()).await {
            Ok(status) => {
                self.finish_log().await;
                status
            }
            Err(_) => self.kill().await,
        }
    }

    /// Kills the process and all that it started.
    pub(super) async fn kill(mut self) -> Option<ExitStatus> {
        orphans::kill_group(self.pid);
        let status = self.process.wait().await.ok();
        self.finish_log().await;
        status
    }

    /// Reads what still comes, so that a process which writes is not blocked, until it ends.
    async fn drain(&mut self) -> Option<ExitStatus> {
        while let Some(Ok(_)) = self.events.next().await {}
        self.process.wait().await.ok()
    }

    /// Lets the last lines of its log through; a grandchild that keeps the pipe open is not waited for.
    async fn finish_log(&mut self) {
        if tokio::time::timeout(Duration::from_secs(1), &mut self.log)
            .await
            .is_err()
        {
            self.log.abort();
        }
    }

    async fn send(&mut self, kind: worker_command::Kind) {
        let Some(commands) = &mut self.commands else {
            return;
        };
        let command = WorkerCommand { kind: Some(kind) };
        if let Err(error) = commands
            .send(bytes::Bytes::from(command.encode_to_vec()))
            .await
        {
            // The process is ending; its end will be noticed where events are read.
            tracing::debug!(%error, "a command did not reach the process");
        }
    }
}

impl Watch {
    fn new(silence_timeout: Duration, stall_timeout: Duration) -> Self {
        let now = Instant::now();
        Watch {
            silence_timeout,
            stall_timeout,
            heard: now,
            advanced: now,
            ticks: 0,
        }
    }

    fn hear(&mut self, kind: Option<&worker_event::Kind>) {
        self.heard = Instant::now();
        match kind {
            Some(worker_event::Kind::Beat(beat)) => {
                if beat.ticks != self.ticks {
                    self.ticks = beat.ticks;
                    self.advanced = self.heard;
                }
            }
            _ => self.advanced = self.heard,
        }
    }

    fn deadline(&self) -> Instant {
        (self.heard + self.silence_timeout).min(self.advanced + self.stall_timeout)
    }

    fn verdict(&self) -> Broken {
        if self.heard.elapsed() >= self.silence_timeout {
            Broken::Silent(self.silence_timeout)
        } else {
            Broken::Stalled(self.stall_timeout)
        }
    }
}

/// What starts the running program again. On Linux one that was replaced on disk is still there under the server's process id; its path comes first, because a
/// launcher that starts on another machine or as another user cannot follow the id. Libtorch is found either way: its path in the program is absolute
/// (`build.rs`).
fn runnable(named: &Path) -> PathBuf {
    let running = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    match !named.exists() && running.exists() {
        true => running,
        false => named.to_owned(),
    }
}

/// Whether a process was ended by SIGKILL.
pub(super) fn is_killed(status: Option<ExitStatus>) -> bool {
    status.and_then(|status| status.signal()) == Some(9)
}

/// How a process ended, in words.
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    let Some(status) = status else {
        return "the process ended in an unknown way".to_owned();
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the process ended with exit code {code}"),
        (None, Some(9)) => "the process was killed by signal 9 (SIGKILL)".to_owned(),
        (None, Some(signal)) => format!("the process was ended by signal {signal}"),
        (None, None) => "the process ended in an unknown way".to_owned(),
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

/// Passes the worker's log lines on to the server's log.
///
/// Memory and log are bounded whatever the process writes: long lines are cut, and of a flood only the first lines of each second are kept.
async fn forward_log(stderr: ChildStderr, training: String) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut second, mut lines, mut dropped) = (Instant::now(), 0, 0_u64);
    while let Ok(true) = next_line(&mut stderr, &mut line).await {
        if second.elapsed() >= Duration::from_secs(1) {
            say_dropped(&training, dropped);
            (second, lines, dropped) = (Instant::now(), 0, 0);
        }
        if lines == MOST_LOG_LINES {
            dropped += 1;
            continue;
        }
        lines += 1;
        relay(&training, &String::from_utf8_lossy(&line));
    }
    say_dropped(&training, dropped);
}

fn say_dropped(training: &str, dropped: u64) {
    if dropped > 0 {
        tracing::warn!(target: "visage::worker", training, dropped, "left out lines of a flood");
    }
}

/// Puts a line of the worker's log into the server's, at its own level; what is no line of its log comes from a library and is INFO.
fn relay(training: &str, line: &str) {
    let (level, text) = parse_log_line(line).unwrap_or((tracing::Level::INFO, line.to_owned()));
    match level {
        tracing::Level::ERROR => tracing::error!(target: "visage::worker", training, "{text}"),
        tracing::Level::WARN => tracing::warn!(target: "visage::worker", training, "{text}"),
        tracing::Level::INFO => tracing::info!(target: "visage::worker", training, "{text}"),
        tracing::Level::DEBUG => tracing::debug!(target: "visage::worker", training, "{text}"),
        tracing::Level::TRACE => tracing::trace!(target: "visage::worker", training, "{text}"),
    }
}

/// The level of a line in JSON, and its message followed by its fields.
fn parse_log_line(line: &str) -> Option<(tracing::Level, String)> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let level = fields.get("level")?.as_str()?.parse().ok()?;
    let mut text = fields.get("message")?.as_str()?.to_owned();
    let others = fields
        .iter()
        .filter(|(name, _)| !["level", "message", "target", "timestamp"].contains(&name.as_str()));
    for (name, value) in others {
        let value = value.as_str().map_or(value.to_string(), str::to_owned);
        text.push_str(&format!(" {name}={value}"));
    }
    Some((level, text))
}

/// Reads a line without its end, of which only the first [`LONGEST_LOG_LINE`] bytes are kept; false at the end of the log.
async fn next_line(
    source: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    let mut is_begun = false;
    loop {
        let chunk = source.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(is_begun);
        }
        is_begun = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = LONGEST_LOG_LINE - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        source.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn log_lines_are_cut_and_the_next_one_is_whole() {
        let long = "x".repeat(3 * LONGEST_LOG_LINE);
        let text = format!("first\n{long}\n\nlast");
        let mut source = BufReader::with_capacity(100, text.as_bytes());
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while next_line(&mut source, &mut line).await.unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(lines, ["first", &long[..LONGEST_LOG_LINE], "", "last"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn program_that_was_replaced_is_started_as_it_runs() {
        let named = std::env::current_exe().unwrap();
        assert_eq!(runnable(&named), named);
        let replaced = runnable(&named.with_extension("replaced"));
        assert_eq!(
            fs_err::canonicalize(replaced).unwrap(),
            fs_err::canonicalize(named).unwrap()
        );
    }

    #[test]
    fn log_lines_of_the_worker_keep_their_level_and_fields() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","message":"the training failed","error":"no space","target":"visage"}"#;
        let expected = "the training failed error=no space".to_owned();
        assert_eq!(
            parse_log_line(line),
            Some((tracing::Level::ERROR, expected))
        );
        assert_eq!(parse_log_line("a library's own words"), None);
    }
}
