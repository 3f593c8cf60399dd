//! Starts servers, draws faces, waits for conditions.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};
use visage::{
    proto::v1::{
        self, TrainingState, model_service_client::ModelServiceClient,
        prediction_service_client::PredictionServiceClient,
        training_service_client::TrainingServiceClient,
    },
    synth,
};

/// Longer than anything here takes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A running server; dropping it kills the process.
pub(crate) struct Server {
    process: Child,
    pub(crate) grpc: String,
    pub(crate) http: String,
    /// Holds the data, the faces and whatever else the test writes.
    pub(crate) directory: TempDir,
    options: Vec<String>,
    /// Words in front of its own.
    launcher: Vec<String>,
}

impl Server {
    /// Starts a server with these flags on top of those of all tests.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_under(&[], options)
    }

    /// Starts a server by a command in front of its own.
    pub(crate) fn start_under(launcher: &[&str], options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(directory, launcher, options)
    }

    /// Starts a server in a directory that the test has prepared.
    pub(crate) fn start_in(directory: TempDir, launcher: &[&str], options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let launcher: Vec<String> = launcher.iter().map(|&word| word.to_owned()).collect();
        let (process, grpc, http) = spawn(directory.path(), &launcher, "127.0.0.1:0", &options);
        Server {
            process,
            grpc,
            http,
            directory,
            options,
            launcher,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills the server as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts a server again on the same data and the same gRPC address.
    pub(crate) fn start_again(&mut self) {
        let (process, grpc, http) = spawn(
            self.directory.path(),
            &self.launcher,
            &self.grpc,
            &self.options,
        );
        assert_eq!(grpc, self.grpc);
        (self.process, self.http) = (process, http);
    }

    /// Starts a server again with other flags.
    pub(crate) fn start_again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.start_again();
    }

    /// Waits for the server's own end and returns its exit code.
    ///
    /// The test's own connections are served meanwhile: a server that ends asks each of them whether it has heard so, and waits for the answer.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        let pid = self.pid();
        wait_until("the server's end", || async { !is_alive(pid) }).await;
        self.process.wait().unwrap().code()
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect_lazy()
    }

    pub(crate) fn trainings(&self) -> TrainingServiceClient<Channel> {
        TrainingServiceClient::new(self.channel())
    }

    pub(crate) fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel())
    }

    pub(crate) fn predictions(&self) -> PredictionServiceClient<Channel> {
        PredictionServiceClient::new(self.channel())
    }

    /// Draws faces into a directory of the server's.
    pub(crate) fn faces(&self, name: &str, count: usize, seed: u64) -> PathBuf {
        faces(&self.path(name), count, seed)
    }

    /// Puts a training into the queue and returns its name.
    pub(crate) async fn queue(&self, spec: v1::TrainingSpec) -> String {
        let request = v1::StartTrainingRequest {
            spec: Some(spec),
            ..Default::default()
        };
        let response = self.trainings().start_training(request).await.unwrap();
        response.into_inner().training.unwrap().name
    }

    pub(crate) async fn training(&self, name: &str) -> v1::Training {
        get_training(&mut self.trainings(), name).await.unwrap()
    }

    /// Waits until the training is as wanted, and returns it.
    pub(crate) async fn training_when(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&v1::Training) -> bool,
    ) -> v1::Training {
        let begun = Instant::now();
        loop {
            let training = self.training(name).await;
            if wanted(&training) {
                return training;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{name} was not {what} in time: {training:#?}"
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until the training has ended, and returns it.
    pub(crate) async fn ended(&self, name: &str) -> v1::Training {
        self.training_when(name, "ended", |training| is_final(training.state()))
            .await
    }

    /// Waits until the training is in the middle of an epoch's training images.
    pub(crate) async fn in_epoch(&self, name: &str) -> v1::Training {
        let training = self
            .training_when(name, "in an epoch", |training| {
                let progress = training.progress.clone().unwrap_or_default();
                let is_running = training.state() == TrainingState::Running;
                is_final(training.state())
                    || (is_running && progress.phase == "train" && progress.step > 0)
            })
            .await;
        assert_eq!(training.state(), TrainingState::Running, "{training:#?}");
        training
    }

    /// Trains a small model to its end; the name of its version.
    pub(crate) async fn train_small(&self) -> String {
        let faces = self.faces("small", 40, 3);
        let training = self.ended(&self.queue(small_spec(&faces)).await).await;
        assert_eq!(
            training.state(),
            TrainingState::Succeeded,
            "{:?}",
            training.failure
        );
        training.model_version
    }

    /// The process that works on a training now.
    pub(crate) fn worker_pid(&self, training: &str) -> u32 {
        let text = fs_err::read_to_string(self.worker_pid_file(training)).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The file that is there as long as a training has a process.
    pub(crate) fn worker_pid_file(&self, training: &str) -> PathBuf {
        let id = training.trim_start_matches("trainings/");
        self.path("data").join("work").join(id).join("worker.pid")
    }

    /// Waits until a training runs for this time.
    pub(crate) async fn running(&self, name: &str, attempt: u32) -> v1::Training {
        let runs = |training: &v1::Training| {
            training.attempt == attempt && training.state() == TrainingState::Running
        };
        self.training_when(name, "running again", runs).await
    }

    /// Predicts one drawn face with the live model.
    pub(crate) async fn predict(&self) -> Result<v1::PredictResponse, Status> {
        let directory = self.path("one-face");
        if !directory.exists() {
            faces(&directory, 1, 77);
        }
        let image = files_of(&directory).remove(0);
        let request = v1::PredictRequest {
            images: vec![fs_err::read(image).unwrap().into()],
            ..Default::default()
        };
        let answer = self.predictions().predict(request).await?;
        Ok(answer.into_inner())
    }

    /// All events of a training, by pages.
    pub(crate) async fn events(&self, training: &str) -> Vec<v1::TrainingEvent> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListEpochMetricsRequest {
                name: training.to_owned(),
                page_size: 7,
                page_token,
                ..Default::default()
            };
            let response = self.trainings().list_epoch_metrics(request).await;
            let response = response.unwrap().into_inner();
            events.extend(response.events);
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return events;
            }
        }
    }

    /// The text of a page of the HTTP port.
    pub(crate) async fn page(&self, path: &str) -> String {
        page(&format!("http://{}{path}", self.http)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended in the test already.
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(40);
            eprintln!("the server's last words:\n{}", lines[tail..].join("\n"));
        }
    }
}

/// Starts the process and waits until it answers.
fn spawn(
    directory: &Path,
    launcher: &[String],
    grpc_listen: &str,
    options: &[String],
) -> (Child, String, String) {
    let ready = directory.join("ready.json");
    // A server that was killed leaves its own behind.
    drop(fs_err::remove_file(&ready));
    let log = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    let program = env!("CARGO_BIN_EXE_visage").to_owned();
    let mut words = launcher.iter().cloned().chain([program]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg("serve").args(options);
    for (flag, value) in [
        ("--data-dir", directory.join("data").to_str().unwrap()),
        ("--grpc-listen", grpc_listen),
        ("--http-listen", "127.0.0.1:0"),
        ("--ready-file", ready.to_str().unwrap()),
        ("--device", "cpu"),
        // Tests run side by side, and libtorch's threads wait for each other by spinning.
        ("--threads", "1"),
        ("--log-format", "text"),
    ] {
        if !options.iter().any(|option| option == flag) {
            command.args([flag, value]);
        }
    }
    let log = log.into_parts().0;
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Without what this machine may have fetched before.
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", directory.join("hub"))
        .env("TORCH_HOME", directory.join("torch"))
        .env_remove("VISAGE_SERVER");
    let mut process = command.spawn().unwrap();
    let begun = Instant::now();
    loop {
        if let Ok(text) = fs_err::read_to_string(&ready) {
            let addresses: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
            return (
                process,
                addresses["grpc"].clone(),
                addresses["http"].clone(),
            );
        }
        if let Some(status) = process.try_wait().unwrap() {
            let log = fs_err::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("the server ended ({status}) before it was ready:\n{log}");
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the server was not ready in time"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) async fn get_training(
    client: &mut TrainingServiceClient<Channel>,
    name: &str,
) -> Result<v1::Training, Status> {
    let request = v1::GetTrainingRequest {
        name: name.to_owned(),
    };
    let response = client.get_training(request).await?.into_inner();
    Ok(response.training.unwrap())
}

/// Draws faces whose file names begin with their ages.
pub(crate) fn faces(directory: &Path, count: usize, seed: u64) -> PathBuf {
    let options = synth::Options {
        count,
        seed,
        size: 64,
        ..Default::default()
    };
    synth::write_faces(directory, &options, |_| {}).unwrap();
    directory.to_owned()
}

/// A training of two epochs that takes about a second.
pub(crate) fn small_spec(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: dataset.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Random.into(),
            ..Default::default()
        }),
        max_epochs: Some(2),
        batch_size: Some(8),
        input_size: Some(32),
        ..Default::default()
    }
}

/// A training whose epochs take seconds and that does not end by itself while a test runs.
pub(crate) fn long_spec(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        max_epochs: Some(10_000),
        batch_size: Some(4),
        input_size: Some(160),
        ..small_spec(dataset)
    }
}

pub(crate) fn is_final(state: TrainingState) -> bool {
    matches!(
        state,
        TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled
    )
}

/// The states that a training went through.
pub(crate) fn states(events: &[v1::TrainingEvent]) -> Vec<TrainingState> {
    let state = |event: &v1::TrainingEvent| match &event.kind {
        Some(v1::training_event::Kind::StateChanged(change)) => Some(change.state()),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// The files of a directory, sorted.
pub(crate) fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs_err::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "png" || end == "jpg")
        })
        .collect();
    files.sort();
    files
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {signal} {pid}: {status}");
}

/// Whether there is such a process that is not dead.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// Waits until a condition holds.
pub(crate) async fn wait_until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Reads a page.
pub(crate) async fn page(address: &str) -> Result<String, ureq::Error> {
    let address = address.to_owned();
    let read = move || {
        ureq::get(&address)
            .call()
            .and_then(|mut page| page.body_mut().read_to_string())
    };
    std::thread::spawn(read).join().unwrap()
}

/// The reason that a status carries for programs.
pub(crate) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

pub(crate) fn code<T>(result: &Result<T, Status>) -> Code {
    result.as_ref().err().map_or(Code::Ok, Status::code)
}
