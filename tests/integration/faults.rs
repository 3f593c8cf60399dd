//! Failures during a training: each results in its state and stop reason, and the server is
//! unaffected.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use visage::proto::v1::{self, StopReason, TrainingState, training_event::Kind};

use crate::support::{Server, is_alive, long_spec, signal, small_spec, wait_until};

/// "Within seconds", with a margin for a busy machine.
const SECONDS: u64 = 30;

/// Asserts the end of a training soon after a failure, and that Predict and the next training work.
async fn assert_ended(
    server: &Server,
    name: &str,
    since: Instant,
    stop_reason: StopReason,
    reason: &str,
) -> v1::Training {
    let training = server.ended(name).await;
    let seconds = since.elapsed().as_secs();
    assert_eq!(training.state(), TrainingState::Failed, "{training:#?}");
    assert_eq!(training.stop_reason(), stop_reason, "{training:#?}");
    let failure = training.failure.clone().unwrap();
    assert_eq!(failure.reason, reason, "{failure:?}");
    assert!(seconds < SECONDS, "it took {seconds} s");
    server.predict().await.unwrap();
    server.train_small().await;
    training
}

/// Sends a signal to the worker during an epoch; the training must end as WORKER_DIED. Returns the
/// failure's message.
async fn message_after(signal_name: &str, options: &[&str]) -> String {
    let server = Server::start(options);
    server.train_small().await;
    let spec = once(long_spec(&server.faces("faces", 120, 1)));
    let name = server.queue(spec).await;
    server.in_epoch(&name).await;
    let pid = server.worker_pid(&name);
    let hit = Instant::now();
    signal(pid, signal_name);
    let reason = StopReason::WorkerDied;
    let training = assert_ended(&server, &name, hit, reason, "WORKER_DIED").await;
    assert!(!is_alive(pid), "the process is still there");
    training.failure.unwrap().message
}

#[tokio::test]
async fn worker_killed_in_the_middle_of_an_epoch_fails_its_training_alone() {
    let message = message_after("KILL", &[]).await;
    assert!(message.contains("SIGKILL"), "{message}");
}

#[tokio::test]
async fn hanging_worker_is_killed() {
    let message = message_after("STOP", &["--worker-silence-timeout", "2s"]).await;
    assert!(message.contains("no heartbeat for 2s"), "{message}");
}

#[tokio::test]
async fn launcher_that_writes_garbage_fails_the_training() {
    let server = Server::start(&["--worker-launcher", "echo"]);
    let begun = Instant::now();
    let spec = once(small_spec(&server.faces("faces", 40, 1)));
    let name = server.queue(spec).await;
    let training = server.ended(&name).await;
    assert_eq!(training.stop_reason(), StopReason::WorkerDied);
    assert!(begun.elapsed().as_secs() < SECONDS);
    let message = training.failure.unwrap().message;
    assert!(message.contains("invalid message"), "{message}");
}

#[tokio::test]
async fn training_that_crashes_at_every_start_fails() {
    let server = Server::start(&["--worker-launcher", "false", "--max-restarts", "2"]);
    let begun = Instant::now();
    let spec = small_spec(&server.faces("faces", 40, 1));
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Failed, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::ServerRestartLimit);
    assert_eq!(training.attempt, 3);
    assert!(begun.elapsed().as_secs() < SECONDS);
    let message = training.failure.unwrap().message;
    assert!(
        message.contains("3 starts in a row") && message.contains("exit code 1"),
        "{message}"
    );
}

#[tokio::test]
async fn a_temporarily_locked_database_fails_no_training() {
    let server = Server::start(&[]);
    let name = server.queue(long_spec(&server.faces("faces", 40, 1))).await;
    let has_epochs = |training: &v1::Training| training.best.is_some();
    server.training_when(&name, "an epoch", has_epochs).await;
    let options = SqliteConnectOptions::new().filename(server.path("data/visage.db"));
    let mut other = options.connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let process = server.worker_pid_file(&name);
    wait_until("its process is gone", || async { !process.exists() }).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    server.running(&name, 2).await;
    // A restarted training has events of the second attempt; without a full checkpoint it starts
    // over.
    server.training_when(&name, "an epoch", has_epochs).await;
    let request = v1::StopTrainingRequest { name: name.clone() };
    server.trainings().stop_training(request).await.unwrap();
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
}

/// Limits the address space of the worker, so that a batch of 64 does not fit and a smaller one
/// does.
#[tokio::test]
async fn batch_that_does_not_fit_into_memory_is_halved() {
    let limit = format!("ulimit -v {MAPPABLE_KILOBYTES}; exec \"$@\"");
    let launcher = ["sh", "-c", &limit, "sh"];
    let options: Vec<&str> = launcher
        .iter()
        .flat_map(|word| ["--worker-launcher", word])
        .collect();
    let server = Server::start(&options);
    let faces = server.faces("faces", 90, 1);
    let spec = v1::TrainingSpec {
        batch_size: Some(64),
        input_size: Some(512),
        max_epochs: Some(1),
        precision: v1::Precision::F32.into(),
        ..small_spec(&faces)
    };
    let name = server.queue(spec.clone()).await;
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let batch = training.resolved_spec.unwrap().batch_size.unwrap();
    assert!(batch < 64, "{batch}");
    let mut before = 64;
    for event in server.events(&name).await {
        if let Some(Kind::SpecChanged(changed)) = event.kind {
            assert_eq!(changed.reason(), v1::SpecChangeReason::OutOfMemory);
            let change = &changed.changes[0];
            assert_eq!(change.field, "batch_size");
            assert_eq!(change.before, before.to_string());
            before /= 2;
            assert_eq!(change.after, before.to_string());
        }
    }
    assert_eq!(before, batch);
    let spec = v1::TrainingSpec {
        on_oom: v1::OnOutOfMemory::Fail.into(),
        ..spec
    };
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.stop_reason(),
        StopReason::OutOfMemory,
        "{training:#?}"
    );
    assert_eq!(training.failure.unwrap().reason, "OUT_OF_MEMORY");
}

/// Address space of a worker in the test above, libraries included.
const MAPPABLE_KILOBYTES: u64 = 2_200_000;

#[tokio::test]
async fn nan_loss_ends_the_training() {
    let server = Server::start(&[]);
    server.train_small().await;
    let begun = Instant::now();
    let spec = v1::TrainingSpec {
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(1e30),
            ..Default::default()
        }),
        max_epochs: Some(50),
        ..small_spec(&server.faces("faces", 60, 1))
    };
    let name = server.queue(spec).await;
    let reason = StopReason::NonFiniteLoss;
    let training = assert_ended(&server, &name, begun, reason, "NON_FINITE_LOSS").await;
    let message = training.failure.unwrap().message;
    assert!(
        message.contains("spec.optimizer.learning_rate"),
        "{message}"
    );
}

#[tokio::test]
async fn dataset_emptied_before_its_turn_is_a_data_error() {
    let server = Server::start(&[]);
    server.train_small().await;
    let first = server.queue(long_spec(&server.faces("faces", 60, 1))).await;
    server.in_epoch(&first).await;
    let emptied = server.faces("emptied", 40, 2);
    let name = server.queue(small_spec(&emptied)).await;
    empty(&emptied);
    let begun = Instant::now();
    cancel(&server, &first, true).await;
    assert_ended(
        &server,
        &name,
        begun,
        StopReason::DataError,
        "DATASET_EMPTY",
    )
    .await;
}

#[tokio::test]
async fn dataset_emptied_in_the_middle_of_an_epoch_is_a_data_error() {
    let server = Server::start(&[]);
    server.train_small().await;
    let faces = server.faces("faces", 120, 1);
    let spec = v1::TrainingSpec {
        // Without this, later epochs would read no image.
        feature_cache: v1::FeatureCache::Off.into(),
        ..long_spec(&faces)
    };
    let name = server.queue(spec).await;
    server.in_epoch(&name).await;
    let emptied = Instant::now();
    empty(&faces);
    let reason = StopReason::DataError;
    assert_ended(&server, &name, emptied, reason, "TOO_MANY_UNREADABLE").await;
}

/// The data directory is on a file system of 500 MB, which the test fills during a training.
#[tokio::test]
async fn training_pauses_on_a_full_disk_and_resumes_when_there_is_room() {
    let Some((server, inside)) = on_own_file_system("500m", &["--min-free-disk", "0"]) else {
        return;
    };
    server.train_small().await;
    let filler = inside.join("filler");
    let name = server
        .queue(long_spec(&server.faces("faces", 120, 1)))
        .await;
    server.in_epoch(&name).await;
    fill(&filler);
    let paused = in_state(&server, &name, TrainingState::Paused).await;
    assert_eq!(paused.failure.unwrap().reason, "DISK_FULL");
    server.predict().await.unwrap();
    fs_err::remove_file(&filler).unwrap();
    let resumed = in_state(&server, &name, TrainingState::Running).await;
    assert_eq!(resumed.failure, None);
    cancel(&server, &name, true).await;
    server.train_small().await;
}

async fn in_state(server: &Server, name: &str, state: TrainingState) -> v1::Training {
    server
        .training_when(name, state.as_str_name(), |training| {
            training.state() == state
        })
        .await
}

/// A server whose data directory is a file system of a size, and that directory as the mounts of
/// the process show it; `None` where a test may not mount one.
fn on_own_file_system(size: &str, options: &[&str]) -> Option<(Server, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs_err::create_dir(&data).unwrap();
    let launcher = own_file_system(&data, size)?;
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let server = Server::start_in(directory, &launcher, options);
    let inside = format!("/proc/{}/root{}", server.pid(), data.display());
    Some((server, PathBuf::from(inside)))
}

/// A launcher that mounts a file system of a size; `None` where a test may not do so.
fn own_file_system(place: &Path, size: &str) -> Option<Vec<String>> {
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let can_mount = Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .status();
    if !can_mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine does not let a test mount a file system of its own");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {} && exec \"$@\"",
        place.display()
    );
    let launcher = unshare.into_iter().chain(["sh", "-c", &script, "sh"]);
    Some(launcher.map(str::to_owned).collect())
}

/// Free bytes of the file system of a directory.
fn free_space(directory: &Path) -> usize {
    let mut stat = Command::new("stat");
    let output = stat.args(["-f", "-c", "%a %S"]).arg(directory).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let numbers = text
        .split_whitespace()
        .map(|number| number.parse::<usize>().unwrap());
    numbers.product()
}

/// Writes to a file until the disk is full.
fn fill(path: &Path) {
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "status=none"])
        .arg(format!("of={}", path.display()))
        .status()
        .unwrap();
    assert!(!filled.success(), "dd stops when the disk is full");
}

/// The data directory is on a file system of 1200 MB, of which 400 MB must stay free.
#[tokio::test]
async fn training_pauses_below_the_minimum_of_free_disk_and_resumes() {
    let Some((server, inside)) = on_own_file_system("1200m", &["--min-free-disk", "400MiB"]) else {
        return;
    };
    server.train_small().await;
    let filler = inside.join("filler");
    let name = server
        .queue(long_spec(&server.faces("faces", 120, 1)))
        .await;
    let before = server
        .training_when(&name, "past an epoch", |training| training.last.is_some())
        .await;
    // Enough for the state of the training is left.
    let filled = free_space(&inside) - (300 << 20);
    fs_err::write(&filler, vec![1_u8; filled]).unwrap();
    let paused = in_state(&server, &name, TrainingState::Paused).await;
    let failure = paused.failure.unwrap();
    assert_eq!(failure.reason, "DISK_LOW", "{failure:?}");
    assert!(failure.message.contains("min_free_disk"), "{failure:?}");
    let request = v1::StartTrainingRequest {
        spec: Some(small_spec(&server.path("faces"))),
        ..Default::default()
    };
    let refused = server.trainings().start_training(request).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::ResourceExhausted,
        "{refused:?}"
    );
    assert!(refused.message().contains("min_free_disk"), "{refused:?}");
    fs_err::remove_file(&filler).unwrap();
    let resumed = in_state(&server, &name, TrainingState::Running).await;
    assert_eq!(resumed.failure, None);
    // Nothing was lost: the training continues from its full checkpoint.
    let epoch = |training: &v1::Training| training.last.map(|last| last.epoch);
    assert!(epoch(&resumed) >= epoch(&before), "{resumed:#?}");
    cancel(&server, &name, true).await;
}

#[tokio::test]
async fn damaged_images_are_counted_and_do_not_stop_the_training() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    fs_err::write(faces.join("31_broken.jpg"), b"no image").unwrap();
    fs_err::write(faces.join("nameless.jpg"), b"no age").unwrap();
    fs_err::write(faces.join("999_old.jpg"), b"no such age").unwrap();
    let training = server.ended(&server.queue(small_spec(&faces)).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let rejects = training.dataset.unwrap().rejects;
    let found: Vec<(&str, u64, &str)> = rejects
        .iter()
        .map(|reject| {
            let example = reject.examples[0].as_str();
            (reject.reason.as_str(), reject.count, example)
        })
        .collect();
    for expected in [
        ("age_out_of_range", 1, "999_old.jpg"),
        ("no_age", 1, "nameless.jpg"),
        ("unsupported_format", 1, "31_broken.jpg"),
    ] {
        let is_there = found
            .iter()
            .any(|one| one.0 == expected.0 && one.1 == expected.1 && one.2.contains(expected.2));
        assert!(is_there, "{expected:?} is not in {found:?}");
    }
}

/// The spec without restarts.
fn once(spec: v1::TrainingSpec) -> v1::TrainingSpec {
    v1::TrainingSpec {
        restart_policy: Some(v1::RestartPolicy {
            max_restarts: Some(0),
        }),
        ..spec
    }
}

async fn cancel(server: &Server, name: &str, force: bool) {
    let request = v1::CancelTrainingRequest {
        name: name.to_owned(),
        force,
    };
    server.trainings().cancel_training(request).await.unwrap();
}

fn empty(directory: &Path) {
    for entry in fs_err::read_dir(directory).unwrap() {
        fs_err::remove_file(entry.unwrap().path()).unwrap();
    }
}
