//! A server process in a temporary directory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::{Status, transport::Channel};
use visage::proto::v1::{
    self, dataset_service_client::DatasetServiceClient, model_service_client::ModelServiceClient,
    prediction_service_client::PredictionServiceClient,
    training_service_client::TrainingServiceClient,
};

use crate::support::{PATIENCE, faces, files_of, is_alive, page, wait_until};

/// A running server; dropping it kills the process.
pub(crate) struct Server {
    process: Child,
    pub(crate) grpc: String,
    pub(crate) http: String,
    /// Contains the data, the faces and all files of the test.
    pub(crate) directory: TempDir,
    options: Vec<String>,
    /// A command and its arguments that run the server.
    launcher: Vec<String>,
}

impl Server {
    /// Starts a server with these flags in addition to the defaults of the tests.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_under(&[], options)
    }

    /// Starts a server by another command.
    pub(crate) fn start_under(launcher: &[&str], options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(directory, launcher, options)
    }

    /// Starts a server in a directory that the test prepared.
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

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again with the same data and gRPC address.
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

    pub(crate) fn start_again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.start_again();
    }

    /// Waits for the end of the server and returns its exit code.
    ///
    /// The connections of the test are served meanwhile, because a graceful shutdown waits for the
    /// client's acknowledgement.
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

    pub(crate) fn datasets(&self) -> DatasetServiceClient<Channel> {
        DatasetServiceClient::new(self.channel())
    }

    /// A command as a client of this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_visage"));
        command
            .args(["--server", &self.grpc])
            .args(arguments)
            .env_remove("VISAGE_SERVER");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
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

    pub(crate) async fn page(&self, path: &str) -> String {
        page(&format!("http://{}{path}", self.http)).await.unwrap()
    }

    pub(crate) fn faces(&self, name: &str, count: usize, seed: u64) -> PathBuf {
        faces(&self.path(name), count, seed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The test may have ended it already.
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

/// Starts the process and waits until it is ready.
fn spawn(
    directory: &Path,
    launcher: &[String],
    grpc_listen: &str,
    options: &[String],
) -> (Child, String, String) {
    let ready = directory.join("ready.json");
    // A killed server leaves its ready file behind.
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
        // Tests run in parallel, and libtorch's threads wait for each other by spinning.
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
        // Without the caches of this machine.
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
