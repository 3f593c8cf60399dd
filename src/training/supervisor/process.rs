//! One worker process: its pipes, its log and its exit.

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
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::{
    proto::worker_v1::{
        CancelCommand, Job, LiveVersion, PauseCommand, StopCommand, UpdateCommand, WorkerCommand,
        WorkerEvent, worker_command, worker_event,
    },
    telemetry::traces,
    training::{
        control::ControlSignal,
        protocol::{EXIT_RANK_LOST, MAX_FRAME},
        ranks::rank_variables,
    },
};

use super::{
    orphans,
    watchdog::{Watchdog, WorkerFault},
    worker_log::forward_log,
};

/// Makes glibc keep freed memory for the next training step. By default it returns blocks of many
/// megabytes to the kernel, which must clear the pages again: 15 % of an epoch's time over images.
/// Other allocators ignore these variables.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
];

/// A token of commands, which no worker needs.
const CLIENT_TOKEN: &str = "VISAGE_TOKEN";

/// Processes of a training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processes {
    /// Most processes.
    pub(crate) count: u32,
    /// Longest wait of one for another.
    pub(crate) timeout: Duration,
}

/// A running worker. Dropping it kills the process.
pub(super) struct Worker {
    process: Child,
    pid: u32,
    events: FramedRead<ChildStdout, LengthDelimitedCodec>,
    /// `None` once the pipe is closed.
    commands: Option<FramedWrite<ChildStdin, LengthDelimitedCodec>>,
    log: JoinHandle<()>,
    watchdog: Watchdog,
}

pub(super) enum WorkerMessage {
    /// An event other than a heartbeat.
    Event(Box<worker_event::Kind>),
    /// The worker closed its end of the pipe.
    Closed,
}

/// The unexpected end of a process.
#[derive(Clone)]
pub(super) struct Crash {
    pub(super) message: String,
    /// Killed by SIGKILL, as the kernel does when memory runs out, or after the end of another
    /// process of the training, which may have been killed.
    pub(super) is_killed: bool,
}

impl Worker {
    /// Starts a process and sends it its job.
    pub(super) async fn start(
        launcher: &[String],
        ranks: Processes,
        job: Job,
        heartbeat_timeout: Duration,
        progress_timeout: Duration,
    ) -> io::Result<Self> {
        let path = std::env::current_exe()?;
        let program = executable(&path);
        let mut command = match launcher.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command
                    .args(rest)
                    .arg(&program)
                    .args(["worker", "--launched"]);
                // Of a job in which the server itself runs.
                for name in rank_variables() {
                    command.env_remove(name);
                }
                command
            }
            None => {
                let mut command = Command::new(&program);
                // Shown by `ps` even if the file was replaced.
                command.arg0(&path).arg("worker");
                command
            }
        };
        let mut process = command
            .args(["--processes", &ranks.count.to_string()])
            .args(["--rank-timeout", &ranks.timeout.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(ALLOCATOR)
            .env_remove(CLIENT_TOKEN)
            .kill_on_drop(true)
            // Ctrl-C in the server's terminal must reach the server only, and killing the group
            // ends the children of a launcher too.
            .process_group(0)
            .spawn()?;
        let pid = process
            .id()
            .ok_or_else(|| io::Error::other("the process exited immediately"))?;
        orphans::write_pid_file(Path::new(&job.work_dir), pid)?;
        let missing = || io::Error::other("the process has no pipes");
        let stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        let stderr = process.stderr.take().ok_or_else(missing)?;
        let log = forward_log(stderr, job.training.clone());
        let mut worker = Worker {
            process,
            pid,
            events: FramedRead::new(stdout, codec()),
            commands: Some(FramedWrite::new(stdin, codec())),
            log: tokio::spawn(traces::instrument(traces::current(), log)),
            watchdog: Watchdog::new(heartbeat_timeout, progress_timeout),
        };
        worker.send(worker_command::Kind::Job(job)).await;
        Ok(worker)
    }

    /// Forwards a signal that the process handles itself.
    pub(super) async fn signal(&mut self, signal: ControlSignal) {
        self.send(match signal {
            ControlSignal::Pause => worker_command::Kind::Pause(PauseCommand {}),
            ControlSignal::Stop => worker_command::Kind::Stop(StopCommand {}),
            ControlSignal::Cancel => worker_command::Kind::Cancel(CancelCommand {}),
            ControlSignal::Continue | ControlSignal::Kill => return,
        })
        .await;
    }

    pub(super) async fn update(&mut self, update: UpdateCommand) {
        self.send(worker_command::Kind::Update(update)).await;
    }

    pub(super) async fn send_live(&mut self, live: LiveVersion) {
        self.send(worker_command::Kind::Live(live)).await;
    }

    /// Waits for the next event. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<WorkerMessage, WorkerFault> {
        loop {
            let deadline = self.watchdog.deadline();
            let frame = match tokio::time::timeout_at(deadline, self.events.next()).await {
                Err(_) => return Err(self.watchdog.fault()),
                Ok(None) => return Ok(WorkerMessage::Closed),
                Ok(Some(frame)) => frame,
            };
            let event = frame
                .and_then(|frame| Ok(WorkerEvent::decode(frame)?))
                .map_err(|error| WorkerFault::Protocol(error.to_string()))?;
            self.watchdog.observe(event.kind.as_ref());
            match event.kind {
                None => return Err(WorkerFault::Protocol("the event is empty".to_owned())),
                Some(worker_event::Kind::Heartbeat(_)) => {}
                Some(kind) => return Ok(WorkerMessage::Event(Box::new(kind))),
            }
        }
    }

    /// Closes the pipe, which asks the process to exit, and kills it after the grace period.
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

    /// Kills the process and its children.
    pub(super) async fn kill(mut self) -> Option<ExitStatus> {
        orphans::kill_group(self.pid);
        let status = self.process.wait().await.ok();
        self.finish_log().await;
        status
    }

    /// Discards further events, so that the process is not blocked by a full pipe, until it exits.
    async fn drain(&mut self) -> Option<ExitStatus> {
        while let Some(Ok(_)) = self.events.next().await {}
        self.process.wait().await.ok()
    }

    /// Waits briefly for the last log lines; a grandchild may keep the pipe open.
    async fn finish_log(&mut self) {
        let finished = tokio::time::timeout(Duration::from_secs(1), &mut self.log).await;
        if finished.is_err() {
            self.log.abort();
        }
    }

    async fn send(&mut self, kind: worker_command::Kind) {
        let Some(commands) = &mut self.commands else {
            return;
        };
        let command = WorkerCommand { kind: Some(kind) };
        let frame = bytes::Bytes::from(command.encode_to_vec());
        if let Err(error) = commands.send(frame).await {
            // The process is exiting, which `next` reports.
            tracing::debug!(%error, "failed to send a command to the worker");
        }
    }
}

impl Crash {
    pub(super) fn new(message: String) -> Self {
        Crash {
            message,
            is_killed: false,
        }
    }

    /// A process that exited without a final event.
    pub(super) fn of_exit(status: Option<ExitStatus>) -> Self {
        let signal = status.and_then(|status| status.signal());
        let code = status.and_then(|status| status.code());
        let is_rank_lost = code == Some(i32::from(EXIT_RANK_LOST));
        let how = match (code, signal) {
            _ if is_rank_lost => "lost another process of the training".to_owned(),
            (Some(code), _) => format!("exited with exit code {code}"),
            (None, Some(9)) => "was killed by signal 9 (SIGKILL)".to_owned(),
            (None, Some(signal)) => format!("was terminated by signal {signal}"),
            (None, None) => "ended for an unknown reason".to_owned(),
        };
        Crash {
            message: format!("the worker process {how} before it reported a result"),
            is_killed: signal == Some(9) || is_rank_lost,
        }
    }
}

/// Returns the path that starts the running program again.
///
/// On Linux a program whose file was replaced is still available through the process id of the
/// server. The file's own path is preferred, because a launcher that starts on another machine or
/// as another user cannot resolve the id. Libtorch is found either way: its path in the program is
/// absolute (`build.rs`).
fn executable(path: &Path) -> PathBuf {
    let running = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    if !path.exists() && running.exists() {
        running
    } else {
        path.to_owned()
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::Crash;

    #[test]
    fn ends_of_a_process_are_explained() {
        // As waitpid returns them: the exit code in the second byte, or the signal in the first.
        let crash = |status: i32| Crash::of_exit(Some(ExitStatus::from_raw(status)));
        assert!(crash(1 << 8).message.contains("exit code 1"));
        assert!(!crash(1 << 8).is_killed);
        assert!(crash(9).message.contains("SIGKILL"));
        assert!(crash(9).is_killed);
        assert!(crash(5 << 8).message.contains("lost another process"));
        assert!(crash(5 << 8).is_killed);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn replaced_program_is_started_as_it_runs() {
        let path = std::env::current_exe().unwrap();
        assert_eq!(super::executable(&path), path);
        let replaced = super::executable(&path.with_extension("replaced"));
        assert_eq!(
            fs_err::canonicalize(replaced).unwrap(),
            fs_err::canonicalize(path).unwrap()
        );
    }
}
