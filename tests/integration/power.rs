//! Loss of power: what was not synced is lost, and trainings resume from what was.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use visage::proto::v1::TrainingState;

use crate::{
    resume::{at, left, spec},
    support::{Server, is_alive, is_final, signal, wait_until},
};

/// A server whose synced files are copied by a library that is loaded into it and its workers.
struct Machine {
    server: Server,
    copy: PathBuf,
}

impl Machine {
    /// `None` without a C compiler, which builds the library.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("durable.so");
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/power_loss/durable.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let copy = directory.path().join("copy");
        for name in ["files", "directories"] {
            fs_err::create_dir_all(copy.join(name)).unwrap();
        }
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        let launcher = [
            "env".to_owned(),
            set("LD_PRELOAD", &library),
            set("DURABLE_ROOT", &directory.path().join("data")),
            set("DURABLE_COPY", &copy),
        ];
        let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let server = Server::start_in(directory, &launcher, &[]);
        Some(Machine { server, copy })
    }

    /// Kills all processes at once and reduces the data directory to its synced state.
    async fn lose_power(&mut self, training: &str) {
        let worker = self.server.worker_pid(training);
        // The server first, because it would record the death of a worker.
        signal(self.server.pid(), "STOP");
        if is_alive(worker) {
            signal(worker, "KILL");
        }
        self.server.kill();
        wait_until("the worker is gone", async || !is_alive(worker)).await;
        let (data, found) = (self.server.path("data"), self.server.path("found"));
        self.build(&identity(&data), &found);
        fs_err::remove_dir_all(&data).unwrap();
        fs_err::rename(&found, &data).unwrap();
        // The remaining files survived; copies of others are obsolete.
        for name in ["files", "directories"] {
            fs_err::remove_dir_all(self.copy.join(name)).unwrap();
            fs_err::create_dir(self.copy.join(name)).unwrap();
        }
        self.survey(&data);
    }

    /// Builds a directory as of its last sync.
    fn build(&self, identity: &str, target: &Path) {
        fs_err::create_dir(target).unwrap();
        let entries = fs_err::read_to_string(self.copy.join("directories").join(identity));
        for line in entries.unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ' ');
            let mut next = || fields.next().unwrap();
            let (kind, identity, name) = (next(), next(), next());
            let path = target.join(name);
            if kind == "d" {
                self.build(identity, &path);
                continue;
            }
            let kept = self.copy.join("files").join(identity);
            match kept.exists() {
                true => drop(fs_err::copy(kept, path).unwrap()),
                // Its entry was synced, but not its bytes.
                false => drop(fs_err::File::create(path).unwrap()),
            }
        }
    }

    /// Records everything below a directory as synced.
    fn survey(&self, directory: &Path) {
        let mut entries = String::new();
        for entry in fs_err::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            let (identity, name) = (identity(&path), name.to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                self.survey(&path);
                entries.push_str(&format!("d {identity} {name}\n"));
            } else {
                fs_err::copy(&path, self.copy.join("files").join(&identity)).unwrap();
                entries.push_str(&format!("f {identity} {name}\n"));
            }
        }
        let place = self.copy.join("directories").join(identity(directory));
        fs_err::write(place, entries).unwrap();
    }
}

/// Number and creation time of a file's inode, as the library writes them.
fn identity(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs_err::symlink_metadata(path).unwrap();
    let born = metadata
        .created()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "{}-{}-{}",
        metadata.ino(),
        born.as_secs(),
        born.subsec_nanos()
    )
}

#[tokio::test]
async fn loss_of_power_at_random_moments_changes_no_result() {
    const LOSSES: u32 = 6;
    let Some(mut machine) = Machine::start() else {
        eprintln!("skipped: there is no C compiler to build the library that records synced files");
        return;
    };
    let mut random = ChaCha8Rng::seed_from_u64(14);
    let directory = machine.server.faces("faces", 100, 5);
    let undisturbed = Server::start(&[]);
    let same = undisturbed.faces("faces", 100, 5);
    let name = undisturbed.queue(at(spec(Path::new("")), &same)).await;
    let expected = left(&undisturbed, &name).await;
    let name = machine
        .server
        .queue(at(spec(Path::new("")), &directory))
        .await;
    for loss in 0..LOSSES {
        let training = machine
            .server
            .training_when(&name, "training", |training| {
                is_final(training.state()) || training.state() == TrainingState::Running
            })
            .await;
        assert!(
            !is_final(training.state()),
            "it was over after {loss} losses"
        );
        let received = machine.server.events(&name).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2_000))).await;
        let unsynced = machine.server.path("data").join("unsynced");
        fs_err::write(&unsynced, b"lost").unwrap();
        machine.lose_power(&name).await;
        assert!(!unsynced.exists(), "a file that was never synced is there");
        machine.server.start_again();
        // Events that a client received are still stored.
        let known = machine.server.events(&name).await;
        assert_eq!(known[..received.len()], received);
    }
    assert_eq!(left(&machine.server, &name).await, expected);
}
