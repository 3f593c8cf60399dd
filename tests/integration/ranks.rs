//! Trainings whose shards several processes compute.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use visage::proto::v1::{self, TrainingState};

use crate::{
    resume::{at, left, spec},
    support::{Server, is_alive, is_final, signal, wait_until},
};

const FACES: usize = 120;

/// Four shards of four images each, in f32.
fn sharded() -> v1::TrainingSpec {
    v1::TrainingSpec {
        shards: Some(4),
        batch_size: Some(16),
        max_epochs: Some(3),
        ema_decay: Some(0.9),
        ..spec(Path::new(""))
    }
}

/// The processes of a training by their command lines, rank 0 first.
fn ranks(server: &Server, name: &str) -> Vec<u32> {
    let first = server.worker_pid(name);
    let children = format!("/proc/{first}/task/{first}/children");
    let children = fs_err::read_to_string(children).unwrap_or_default();
    let others = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    std::iter::once(first).chain(others).collect()
}

/// Waits until a training trains with this many processes.
async fn training_with(server: &Server, name: &str, count: usize) -> Vec<u32> {
    server.running(name, 1).await;
    wait_until("all ranks run", || async {
        ranks(server, name).len() == count
    })
    .await;
    ranks(server, name)
}

/// Addresses on which a process listens.
fn listeners(pid: u32) -> BTreeSet<SocketAddr> {
    const LISTEN: &str = "0A";
    let sockets: BTreeSet<String> = fs_err::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| {
            let target = fs_err::read_link(fd.unwrap().path()).ok()?;
            let target = target.to_str()?.strip_prefix("socket:[")?.to_owned();
            Some(target.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = BTreeSet::new();
    for (table, width) in [("tcp", 8), ("tcp6", 32)] {
        let table = fs_err::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] != LISTEN || !sockets.contains(fields[9]) {
                continue;
            }
            let (address, port) = fields[1].split_once(':').unwrap();
            assert_eq!(address.len(), width);
            let port = u16::from_str_radix(port, 16).unwrap();
            // Words in the byte order of this machine.
            let bytes: Vec<u8> = (0..width / 8)
                .flat_map(|word| {
                    let word = &address[8 * word..8 * (word + 1)];
                    u32::from_str_radix(word, 16).unwrap().to_ne_bytes()
                })
                .collect();
            let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(bytes) => bytes.into(),
                Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).unwrap().into(),
            };
            found.insert(SocketAddr::new(ip, port));
        }
    }
    found
}

#[tokio::test]
async fn any_number_of_processes_gives_the_same_bits() {
    let frozen = v1::TrainingSpec {
        batch_norm: v1::BatchNormPolicy::Frozen.into(),
        ..sharded()
    };
    // In the format of the own kernels, if this processor has them.
    let fastest = v1::TrainingSpec {
        precision: v1::Precision::Auto.into(),
        ..sharded()
    };
    for spec in [sharded(), frozen, fastest] {
        let mut expected = None;
        for processes in ["1", "2", "4"] {
            let server = Server::start(&["--worker-processes", processes]);
            let directory = server.faces("faces", FACES, 5);
            let name = server.queue(at(spec.clone(), &directory)).await;
            let found = left(&server, &name).await;
            let expected = expected.get_or_insert_with(|| found.clone());
            assert_eq!(&found, expected, "{processes} processes, {spec:?}");
        }
    }
}

#[tokio::test]
async fn a_killed_rank_restarts_the_training_and_changes_nothing() {
    let long = || v1::TrainingSpec {
        max_epochs: Some(8),
        ..sharded()
    };
    let server = Server::start(&[]);
    let directory = server.faces("faces", FACES, 5);
    let name = server.queue(at(long(), &directory)).await;
    let expected = left(&server, &name).await;

    let server = Server::start(&["--worker-processes", "2", "--rank-timeout", "10s"]);
    let directory = server.faces("faces", FACES, 5);
    let name = server.queue(at(long(), &directory)).await;
    for (attempt, victim, sent) in [(1, 1, "KILL"), (2, 0, "KILL"), (3, 1, "STOP")] {
        server.running(&name, attempt).await;
        wait_until("both ranks run", || async {
            ranks(&server, &name).len() == 2
        })
        .await;
        let pids = ranks(&server, &name);
        server.in_epoch(&name).await;
        signal(pids[victim], sent);
        server
            .training_when(&name, "started again", |training| {
                training.attempt > attempt || is_final(training.state())
            })
            .await;
        for pid in pids {
            wait_until("the processes ended", || async { !is_alive(pid) }).await;
        }
    }
    assert_eq!(left(&server, &name).await, expected);
}

#[tokio::test]
async fn ranks_listen_on_the_loopback_interface_and_end_with_the_training() {
    let server = Server::start(&["--worker-processes", "4"]);
    let directory = server.faces("faces", FACES, 5);
    let endless = v1::TrainingSpec {
        max_epochs: Some(10_000),
        ..sharded()
    };
    let name = server.queue(at(endless, &directory)).await;
    let pids = training_with(&server, &name, 4).await;
    server
        .training_when(&name, "after an epoch", |training| training.last.is_some())
        .await;
    let listening: BTreeSet<SocketAddr> = pids.iter().flat_map(|pid| listeners(*pid)).collect();
    assert!(!listening.is_empty());
    for address in &listening {
        assert!(address.ip().is_loopback(), "{address}");
    }
    let request = v1::StopTrainingRequest { name: name.clone() };
    server.trainings().stop_training(request).await.unwrap();
    let ended = server.ended(&name).await;
    assert_eq!(ended.state(), TrainingState::Succeeded);
    for pid in pids {
        wait_until("the processes ended", || async { !is_alive(pid) }).await;
    }
}

#[tokio::test]
async fn ranks_end_with_a_killed_server() {
    let mut server = Server::start(&["--worker-processes", "2"]);
    let directory = server.faces("faces", FACES, 5);
    let endless = v1::TrainingSpec {
        max_epochs: Some(10_000),
        ..sharded()
    };
    let name = server.queue(at(endless, &directory)).await;
    let pids = training_with(&server, &name, 2).await;
    server.kill();
    for pid in pids {
        wait_until("the processes ended", || async { !is_alive(pid) }).await;
    }
}
