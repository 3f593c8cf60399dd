//! `visage dataset push`, interrupted by a killed server, of archives and of files without
//! extensions.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use visage::proto::v1::DatasetState;

use crate::support::{Server, files_of, text_of, wait_until};

/// A proxy in front of the HTTP port that stalls the first connection after this many bytes.
struct Gate {
    address: String,
    /// The address of the server, which changes with a restart.
    behind: Arc<Mutex<String>>,
    is_holding: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    fn open(behind: &str, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate {
            address: format!("http://{}", listener.local_addr().unwrap()),
            behind: Arc::new(Mutex::new(behind.to_owned())),
            is_holding: Arc::default(),
            held: Arc::default(),
        };
        let (behind, is_holding, held) = (
            Arc::clone(&gate.behind),
            Arc::clone(&gate.is_holding),
            Arc::clone(&gate.held),
        );
        thread::spawn(move || {
            for client in listener.incoming() {
                let address = behind.lock().unwrap().clone();
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(address)) else {
                    continue;
                };
                held.lock()
                    .unwrap()
                    .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (mut up, mut down) = (client.try_clone().unwrap(), client);
                let (mut to, mut from) = (server.try_clone().unwrap(), server);
                thread::spawn(move || drop(std::io::copy(&mut from, &mut down)));
                let is_holding = Arc::clone(&is_holding);
                thread::spawn(move || {
                    let mut passed = 0;
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = up.read(&mut buffer) {
                        if to.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                        passed += read;
                        if passed > bytes && !is_holding.swap(true, Ordering::SeqCst) {
                            // The rest of this connection is never forwarded.
                            return;
                        }
                    }
                    drop(to.shutdown(Shutdown::Write));
                });
            }
        });
        gate
    }

    /// Closes all connections; new ones are forwarded to another port.
    fn lead_to(&self, behind: &str) {
        *self.behind.lock().unwrap() = behind.to_owned();
        for connection in self.held.lock().unwrap().drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

#[tokio::test]
async fn a_push_resumes_after_the_server_was_killed_and_restarted() {
    let mut server = Server::start(&[]);
    let faces = server.faces("faces", 120, 3);
    let gate = Gate::open(&server.http, 60_000);
    let pushing = server
        .command(&[
            "dataset",
            "push",
            faces.to_str().unwrap(),
            "--name",
            "faces",
            "--http",
            &gate.address,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("a part is sent", || async {
        gate.is_holding.load(Ordering::SeqCst)
    })
    .await;
    let uploads = server.path("data/uploads");
    wait_until("a part is on the disk", || async {
        fs_err::read_dir(&uploads)
            .unwrap()
            .any(|entry| entry.unwrap().metadata().unwrap().len() > 10_000)
    })
    .await;
    server.kill();
    server.start_again();
    gate.lead_to(&server.http);
    let pushed = thread::spawn(move || pushing.wait_with_output().unwrap());
    wait_until("the push ends", || async { pushed.is_finished() }).await;
    let pushed = pushed.join().unwrap();
    assert!(pushed.status.success(), "{}", text_of(&pushed));
    assert!(
        text_of(&pushed).contains("; retrying."),
        "{}",
        text_of(&pushed)
    );
    let dataset = server.dataset("faces").await.unwrap();
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 120)
    );

    // The same images, registered, are the same dataset.
    let again = server.run(&[
        "dataset",
        "register",
        faces.to_str().unwrap(),
        "--name",
        "same",
    ]);
    assert!(again.status.success(), "{}", text_of(&again));
    let same = server.dataset("same").await.unwrap();
    assert_eq!(same.report.unwrap().digest, dataset.report.unwrap().digest);
    let list = server.run(&["dataset", "list"]);
    let lines: Vec<String> = text_of(&list).lines().map(str::to_owned).collect();
    assert!(
        lines[1].starts_with("same") && lines[2].starts_with("faces"),
        "{lines:?}"
    );
    let taken = server.run(&[
        "dataset",
        "push",
        faces.to_str().unwrap(),
        "--name",
        "faces",
    ]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(
        text_of(&taken).contains("datasets/faces already exists"),
        "{}",
        text_of(&taken)
    );
    let deleted = server.run(&["dataset", "delete", "faces"]);
    assert!(deleted.status.success(), "{}", text_of(&deleted));
    assert!(!Path::new(&dataset.path).exists());
}

#[tokio::test]
async fn an_interrupted_push_names_its_upload_which_is_listed_resumed_and_deleted() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 3);
    let push = ["dataset", "push", faces.to_str().unwrap(), "--id", "faces"];
    // Interrupts a push whose connection stalls, and returns the id that it prints.
    let interrupted = async || {
        let gate = Gate::open(&server.http, 60_000);
        let pushing = server
            .command(&[&push[..], &["--http", &gate.address]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("a part is sent", || async {
            gate.is_holding.load(Ordering::SeqCst)
        })
        .await;
        let process = pushing.id().to_string();
        let sent = Command::new("kill").args(["-INT", &process]).status();
        assert!(sent.unwrap().success());
        let pushed = thread::spawn(move || pushing.wait_with_output().unwrap());
        wait_until("the push ends", || async { pushed.is_finished() }).await;
        let pushed = pushed.join().unwrap();
        assert_eq!(pushed.status.code(), Some(130), "{}", text_of(&pushed));
        let text = text_of(&pushed);
        assert!(text.contains("Packing 60 files, "), "{text}");
        assert!(text.contains("Interrupted; the server has "), "{text}");
        let (_, rest) = text.split_once("--resume ").unwrap();
        rest.split_once('`').unwrap().0.to_owned()
    };
    let first = interrupted().await;
    let second = interrupted().await;
    let listed = || {
        let list = server.run(&["datasets", "uploads", "--json"]);
        text_of(&list)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|upload| upload["upload"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(), [second.as_str(), &first]);

    // Other contents of the same size are not mixed with those of the upload.
    let files = files_of(&faces);
    let kept = fs_err::read(&files[59]).unwrap();
    let mut changed = kept.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs_err::write(&files[59], changed).unwrap();
    let refused = server.run(&[&push[..], &["--resume", &first]].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", text_of(&refused));
    assert!(
        text_of(&refused).contains("was started with other contents"),
        "{}",
        text_of(&refused)
    );
    fs_err::write(&files[59], kept).unwrap();
    let resumed = server.run(&[&push[..], &["--resume", &first]].concat());
    assert!(resumed.status.success(), "{}", text_of(&resumed));
    let dataset = server.dataset("faces").await.unwrap();
    assert_eq!(dataset.images, 60);
    assert_eq!(listed(), [second.as_str()]);
    let deleted = server.run(&["dataset", "uploads", "rm", &second]);
    assert!(deleted.status.success(), "{}", text_of(&deleted));
    assert!(listed().is_empty());
    let missing = server.run(&["dataset", "uploads", "rm", &second]);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(
        text_of(&missing),
        format!("error: no upload `{second}`; `visage dataset uploads` lists them\n")
    );
}

#[tokio::test]
async fn archives_with_a_manifest_are_accepted_and_hostile_ones_refused() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 12, 3);
    let mut builder = tar::Builder::new(Vec::new());
    let mut manifest = "path,age,split\n".to_owned();
    for (index, file) in files_of(&faces).iter().enumerate() {
        let name = format!("anna-{index}.jpg");
        let split = if index < 9 { "train" } else { "val" };
        manifest.push_str(&format!("images/{name},{},{split}\n", 20 + index));
        builder
            .append_path_with_name(file, Path::new("images").join(name))
            .unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "manifest.csv", manifest.as_bytes())
        .unwrap();
    let archive = server.path("faces.tar");
    fs_err::File::create(&archive)
        .unwrap()
        .write_all(&builder.into_inner().unwrap())
        .unwrap();
    let pushed = server.run(&[
        "dataset",
        "push",
        archive.to_str().unwrap(),
        "--name",
        "labelled",
    ]);
    assert!(pushed.status.success(), "{}", text_of(&pushed));
    let dataset = server.dataset("labelled").await.unwrap();
    let images: Vec<u64> = dataset
        .report
        .unwrap()
        .splits
        .iter()
        .map(|split| split.images)
        .collect();
    assert_eq!(images, [9, 3, 0]);

    pushed_without_extensions(&server, &files_of(&faces));

    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..16].copy_from_slice(b"../../30_out.jpg");
    header.set_size(3);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, &b"bad"[..]).unwrap();
    let hostile = server.path("hostile.tar");
    fs_err::File::create(&hostile)
        .unwrap()
        .write_all(&builder.into_inner().unwrap())
        .unwrap();
    let pushed = server.run(&[
        "dataset",
        "push",
        hostile.to_str().unwrap(),
        "--name",
        "hostile",
    ]);
    assert_eq!(pushed.status.code(), Some(1));
    assert!(
        text_of(&pushed).contains("refused for its entry \"../../30_out.jpg\""),
        "{}",
        text_of(&pushed)
    );
    assert!(!server.path("30_out.jpg").exists() && !server.path("data/30_out.jpg").exists());
    tokio::time::timeout(Duration::from_secs(60), server.delete_dataset("hostile"))
        .await
        .unwrap()
        .unwrap();
}

/// Client and server recognize images by their content, and the report of an archive lists the
/// other files.
fn pushed_without_extensions(server: &Server, files: &[PathBuf]) {
    let directory = server.path("no-extensions");
    let mut archive = tar::Builder::new(Vec::new());
    for (part, files) in [("training", &files[..9]), ("dev", &files[9..])] {
        fs_err::create_dir_all(directory.join(part)).unwrap();
        for file in files {
            let name = Path::new(part).join(file.file_stem().unwrap());
            fs_err::copy(file, directory.join(&name)).unwrap();
            archive
                .append_path_with_name(file, Path::new("faces").join(name))
                .unwrap();
        }
    }
    fs_err::write(directory.join("40_a.heic"), b"\0\0\0\x18ftypheic").unwrap();
    archive
        .append_path_with_name(directory.join("40_a.heic"), "faces/40_a.heic")
        .unwrap();
    let tar = server.path("no-extensions.tar");
    fs_err::write(&tar, archive.into_inner().unwrap()).unwrap();
    for (source, name) in [(directory, "of-directory"), (tar, "of-archive")] {
        let pushed = server.run(&["dataset", "push", source.to_str().unwrap(), "--name", name]);
        let shown = text_of(&pushed);
        assert!(pushed.status.success(), "{shown}");
        assert!(
            shown.contains("9 train, 3 validation, 0 test images"),
            "{shown}"
        );
        let warning = "warning: 1 file is ignored because the content is not a JPEG";
        assert!(shown.contains(warning), "{shown}");
    }
}
