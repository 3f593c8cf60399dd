//! Datasets with a name: registered and uploaded ones, trainings on them, and uploads that survive a killed server.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tonic::{Code, Status, transport::Channel};
use ureq::{Agent, SendBody, http::Response};
use visage::proto::v1::{
    self, DatasetKind, DatasetState, TrainingState, dataset_service_client::DatasetServiceClient,
};

use crate::support::{Server, code, files_of, long_spec, reason, small_spec, wait_until};

impl Server {
    fn datasets(&self) -> DatasetServiceClient<Channel> {
        DatasetServiceClient::new(self.channel())
    }

    async fn register(&self, id: &str, path: &Path) -> Result<v1::Dataset, Status> {
        let request = v1::RegisterDatasetRequest {
            dataset_id: id.to_owned(),
            path: path.to_str().unwrap().to_owned(),
            display_name: format!("The dataset {id}"),
            ..Default::default()
        };
        let answer = self.datasets().register_dataset(request).await?;
        Ok(answer.into_inner().dataset.unwrap())
    }

    async fn create(&self, id: &str, upload: &str) -> Result<v1::Dataset, Status> {
        let request = v1::CreateDatasetRequest {
            dataset_id: id.to_owned(),
            upload: upload.to_owned(),
            ..Default::default()
        };
        let answer = self.datasets().create_dataset(request).await?;
        Ok(answer.into_inner().dataset.unwrap())
    }

    async fn dataset(&self, id: &str) -> Result<v1::Dataset, Status> {
        let name = format!("datasets/{id}");
        let answer = self
            .datasets()
            .get_dataset(v1::GetDatasetRequest { name })
            .await?;
        Ok(answer.into_inner().dataset.unwrap())
    }

    /// Waits until the dataset is READY or FAILED.
    async fn dataset_done(&self, id: &str) -> v1::Dataset {
        wait_until("the dataset is done with", || async {
            let dataset = self.dataset(id).await.unwrap();
            matches!(dataset.state(), DatasetState::Ready | DatasetState::Failed)
        })
        .await;
        self.dataset(id).await.unwrap()
    }

    async fn delete_dataset(&self, id: &str) -> Result<(), Status> {
        let name = format!("datasets/{id}");
        let request = v1::DeleteDatasetRequest { name };
        self.datasets().delete_dataset(request).await.map(|_| ())
    }

    fn visage(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_visage"));
        command
            .args(["--server", &self.grpc])
            .args(arguments)
            .env_remove("VISAGE_SERVER");
        command
    }
}

fn by_name(spec: v1::TrainingSpec, name: &str) -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..spec
    }
}

fn start(spec: v1::TrainingSpec) -> v1::StartTrainingRequest {
    v1::StartTrainingRequest {
        spec: Some(spec),
        ..Default::default()
    }
}

fn said(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    )
}

/// A tar of a directory's images.
fn tar_of(directory: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files_of(directory) {
        let name = file.file_name().unwrap();
        builder
            .append_path_with_name(&file, Path::new("faces").join(name))
            .unwrap();
    }
    builder.into_inner().unwrap()
}

type Answer = Response<ureq::Body>;

/// One request to the HTTP port; its status and answer.
fn ask(
    method: &str,
    url: String,
    headers: &[(&str, String)],
    body: Option<Vec<u8>>,
) -> (u16, Answer) {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let method = method.to_owned();
    let asking = move || {
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method.as_str())
            .uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = match body {
            Some(body) => agent.run(request.body(body).unwrap()),
            None => agent.run(request.body(SendBody::none()).unwrap()),
        };
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer)
    };
    // ureq blocks, and the tests are async.
    thread::spawn(asking).join().unwrap()
}

fn header(answer: &Answer, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

/// Begins an upload; its address and its id.
fn begin(server: &Server, length: usize) -> (String, String) {
    let url = format!("http://{}/datasets/uploads", server.http);
    let (status, answer) = ask(
        "POST",
        url,
        &[("upload-length", length.to_string())],
        Some(Vec::new()),
    );
    assert_eq!(status, 201);
    let path = header(&answer, "location");
    let id = path.rsplit_once('/').unwrap().1.to_owned();
    (path, id)
}

fn patch(server: &Server, path: &str, offset: usize, bytes: &[u8]) -> (u16, Answer) {
    let headers = [
        ("upload-offset", offset.to_string()),
        ("content-type", "application/offset+octet-stream".to_owned()),
    ];
    ask(
        "PATCH",
        format!("http://{}{path}", server.http),
        &headers,
        Some(bytes.to_vec()),
    )
}

fn offset(server: &Server, path: &str) -> String {
    let (status, answer) = ask("HEAD", format!("http://{}{path}", server.http), &[], None);
    assert_eq!(status, 200);
    header(&answer, "upload-offset")
}

#[tokio::test]
async fn a_registered_directory_is_trained_on_by_its_name_and_never_touched() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 40, 3);
    let registered = server.register("faces", &faces).await.unwrap();
    assert_eq!(registered.name, "datasets/faces");
    assert_eq!(registered.kind(), DatasetKind::Registered);
    let dataset = server.dataset_done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 40),
        "{}",
        dataset.failure
    );

    let spec = by_name(small_spec(&faces), "datasets/faces");
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        TrainingState::Succeeded,
        "{:?}",
        training.failure
    );
    let asked = training.spec.clone().unwrap().dataset.unwrap();
    assert_eq!(
        (asked.name.as_str(), asked.path.as_str()),
        ("datasets/faces", "")
    );
    let resolved = training.resolved_spec.clone().unwrap().dataset.unwrap();
    assert_eq!(
        (resolved.name, resolved.path),
        ("datasets/faces".to_owned(), dataset.path.clone())
    );
    // By default both read the same way.
    assert_eq!(
        training.dataset.as_ref().unwrap().digest,
        dataset.report.unwrap().digest
    );

    let report = server.visage(&["evaluate", "--version", "1", "--dataset", "datasets/faces"]);
    assert!(report.status.success(), "{}", said(&report));
    let check = server.visage(&["dataset", "check", "datasets/faces"]);
    assert!(check.status.success(), "{}", said(&check));
    server.delete_dataset("faces").await.unwrap();
    assert_eq!(files_of(&faces).len(), 40);
    assert_eq!(code(&server.dataset("faces").await), Code::NotFound);
    // What was trained on it stays readable, and says where it was.
    let later = server.training(&training.name).await;
    assert_eq!(later.resolved_spec, training.resolved_spec);
}

#[tokio::test]
async fn a_dataset_that_a_training_reads_is_not_deleted() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 20, 3);
    server.register("faces", &faces).await.unwrap();
    server.dataset_done("faces").await;
    let training = server
        .queue(by_name(long_spec(&faces), "datasets/faces"))
        .await;
    let refused = server.delete_dataset("faces").await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
    let status = refused.unwrap_err();
    assert_eq!(reason(&status), "DATASET_IN_USE");
    assert!(status.message().contains(&training), "{}", status.message());
    let request = v1::CancelTrainingRequest {
        name: training.clone(),
        force: true,
    };
    server.trainings().cancel_training(request).await.unwrap();
    server.ended(&training).await;
    server.delete_dataset("faces").await.unwrap();
}

#[tokio::test]
async fn names_that_cannot_be_used_are_refused_at_their_field() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 20, 3);
    let empty = server.path("empty");
    fs_err::create_dir(&empty).unwrap();
    server.register("empty", &empty).await.unwrap();
    let failed = server.dataset_done("empty").await;
    assert_eq!(failed.state(), DatasetState::Failed);
    assert!(
        failed.failure.contains("holds no usable image"),
        "{}",
        failed.failure
    );
    for (name, path, field, problem) in [
        (
            "faces",
            "",
            "spec.dataset.name",
            "not of the form datasets/{id}",
        ),
        (
            "datasets/none",
            "",
            "spec.dataset.name",
            "dataset datasets/none does not exist",
        ),
        ("datasets/empty", "", "spec.dataset.name", "cannot be used"),
        (
            "",
            "",
            "spec.dataset.path",
            "or a dataset in spec.dataset.name",
        ),
    ] {
        let mut spec = by_name(small_spec(&faces), name);
        spec.dataset.as_mut().unwrap().path = path.to_owned();
        let refused = server
            .trainings()
            .start_training(start(spec))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let text = refused.message();
        assert!(
            text.starts_with(&format!("{field}: ")) && text.contains(problem),
            "{text}"
        );
        assert!(!text.contains("more violations"), "{text}");
    }
    server.register("faces", &faces).await.unwrap();
    server.dataset_done("faces").await;
    // Both are allowed only if they mean the same, as in a resolved spec.
    let mut both = by_name(small_spec(&faces), "datasets/faces");
    both.dataset.as_mut().unwrap().path = empty.to_str().unwrap().to_owned();
    let refused = server
        .trainings()
        .start_training(start(both.clone()))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("is not where datasets/faces is"),
        "{}",
        refused.message()
    );
    let real = fs_err::canonicalize(&faces).unwrap();
    both.dataset.as_mut().unwrap().path = real.to_str().unwrap().to_owned();
    let request = v1::StartTrainingRequest {
        validate_only: true,
        ..start(both)
    };
    server.trainings().start_training(request).await.unwrap();

    assert_eq!(
        code(&server.register("faces", &faces).await),
        Code::AlreadyExists
    );
    assert_eq!(
        code(&server.register("No Id", &faces).await),
        Code::InvalidArgument
    );
    let missing = server.register("missing", &server.path("missing")).await;
    assert_eq!(code(&missing), Code::InvalidArgument);
}

#[tokio::test]
async fn lists_have_pages_newest_first() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 4, 3);
    for id in ["a", "b", "c"] {
        server.register(id, &faces).await.unwrap();
        server.dataset_done(id).await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListDatasetsRequest {
            page_size: 2,
            page_token,
        };
        let page = server
            .datasets()
            .list_datasets(request)
            .await
            .unwrap()
            .into_inner();
        assert!(
            page.datasets
                .iter()
                .all(|dataset| dataset.samples.is_empty())
        );
        names.extend(page.datasets.into_iter().map(|dataset| dataset.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["datasets/c", "datasets/b", "datasets/a"]);
}

#[tokio::test]
async fn an_upload_survives_a_killed_server_and_becomes_a_dataset() {
    let mut server = Server::start(&[]);
    let faces = server.faces("faces", 40, 3);
    let tar = tar_of(&faces);
    let (path, id) = begin(&server, tar.len());
    assert_eq!(offset(&server, &path), "0");
    let early = server.create("faces", &id).await;
    assert_eq!(reason(&early.unwrap_err()), "UPLOAD_INCOMPLETE");
    let (status, answer) = patch(&server, &path, 0, &tar[..10_000]);
    assert_eq!(
        (status, header(&answer, "upload-offset").as_str()),
        (204, "10000")
    );

    // In the middle of a request, of which the server has a part.
    let mut broken = TcpStream::connect(&server.http).unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: test\r\nupload-offset: 10000\r\ncontent-type: application/offset+octet-stream\r\ncontent-length: {}\r\n\r\n",
        tar.len() - 10_000
    );
    broken.write_all(head.as_bytes()).unwrap();
    broken.write_all(&tar[10_000..20_000]).unwrap();
    let file = server
        .path("data")
        .join("uploads")
        .join(format!("{id}.data"));
    wait_until("the part is in the file", || async {
        fs_err::metadata(&file).unwrap().len() > 10_000
    })
    .await;
    server.kill();
    server.start_again();
    let there: usize = offset(&server, &path).parse().unwrap();
    assert!((10_001..=20_000).contains(&there), "{there}");
    assert_eq!(patch(&server, &path, 0, &tar[..5]).0, 409);
    assert_eq!(
        patch(&server, &path, there, &[&tar[there..], b"more"].concat()).0,
        413
    );
    assert_eq!(patch(&server, &path, there, &tar[there..]).0, 204);

    server.create("faces", &id).await.unwrap();
    let dataset = server.dataset_done("faces").await;
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 40),
        "{}",
        dataset.failure
    );
    assert_eq!(dataset.kind(), DatasetKind::Uploaded);
    assert!(
        Path::new(&dataset.path)
            .starts_with(fs_err::canonicalize(server.path("data/datasets")).unwrap())
    );
    let (status, _) = ask("HEAD", format!("http://{}{path}", server.http), &[], None);
    assert_eq!(status, 404, "the archive is gone once it is unpacked");
    let (status, mut image) = ask(
        "GET",
        format!("http://{}/datasets/faces/samples/0", server.http),
        &[],
        None,
    );
    assert_eq!(
        (status, header(&image, "content-type").as_str()),
        (200, "image/jpeg")
    );
    image::load_from_memory(&image.body_mut().read_to_vec().unwrap()).unwrap();
    for wrong in [
        "faces/samples/99",
        "faces/samples/-1",
        "none/samples/0",
        "..%2F..%2Fetc/samples/0",
    ] {
        let (status, _) = ask(
            "GET",
            format!("http://{}/datasets/{wrong}", server.http),
            &[],
            None,
        );
        assert_eq!(status, 404, "{wrong}");
    }

    let spec = by_name(small_spec(&faces), "datasets/faces");
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        TrainingState::Succeeded,
        "{:?}",
        training.failure
    );
    server.delete_dataset("faces").await.unwrap();
    assert!(!Path::new(&dataset.path).exists());
}

#[tokio::test]
async fn requests_that_are_no_uploads_are_refused() {
    let server = Server::start(&["--max-upload-bytes", "64KiB", "--upload-expiry", "2s"]);
    let uploads = format!("http://{}/datasets/uploads", server.http);
    let post = |length: &str| {
        ask(
            "POST",
            uploads.clone(),
            &[("upload-length", length.to_owned())],
            Some(Vec::new()),
        )
    };
    assert_eq!(post("65537").0, 413);
    assert_eq!(post("0").0, 413);
    assert_eq!(post("many").0, 400);
    let (_, mut answer) = post("70000");
    let text = answer.body_mut().read_to_string().unwrap();
    assert!(text.contains("1 to 65536 are (max_upload_bytes"), "{text}");
    let (path, id) = begin(&server, 10);
    let (status, _) = ask(
        "PATCH",
        format!("http://{}{path}", server.http),
        &[("upload-offset", "0".to_owned())],
        Some(b"0".to_vec()),
    );
    assert_eq!(status, 415);
    assert_eq!(ask("GET", uploads.clone(), &[], None).0, 405);
    let unknown = format!("{uploads}/11111111-1111-4111-8111-111111111111");
    assert_eq!(ask("DELETE", unknown, &[], None).0, 404);
    let (given_up, _) = begin(&server, 10);
    assert_eq!(
        ask(
            "DELETE",
            format!("http://{}{given_up}", server.http),
            &[],
            None
        )
        .0,
        204
    );
    // Nothing comes for the other one any more.
    wait_until("the abandoned upload is removed", || async {
        ask("HEAD", format!("http://{}{path}", server.http), &[], None).0 == 404
    })
    .await;
    assert_eq!(
        reason(&server.create("late", &id).await.unwrap_err()),
        "NO_UPLOAD"
    );
    // The answer is 404 from the moment on that its note is gone; its bytes go after it.
    let files = || fs_err::read_dir(server.path("data/uploads")).unwrap();
    wait_until("the bytes are removed", || async { files().count() == 0 }).await;
}

#[tokio::test]
async fn a_server_without_uploads_says_so_and_registers_all_the_same() {
    let server = Server::start_under(&["env", "VISAGE_UPLOADS=false"], &[]);
    let faces = server.faces("faces", 4, 3);
    let url = format!("http://{}/datasets/uploads", server.http);
    assert_eq!(
        ask(
            "POST",
            url,
            &[("upload-length", "1".to_owned())],
            Some(Vec::new())
        )
        .0,
        404
    );
    let refused = server.create("faces", "x").await.unwrap_err();
    assert_eq!(reason(&refused), "NO_UPLOADS");
    let push = server.visage(&[
        "dataset",
        "push",
        faces.to_str().unwrap(),
        "--name",
        "faces",
    ]);
    assert_eq!(push.status.code(), Some(1));
    assert!(said(&push).contains("does not accept uploads"), "{}", said(&push));
    let register = server.visage(&["dataset", "register", faces.to_str().unwrap()]);
    assert!(register.status.success(), "{}", said(&register));
    assert!(said(&register).contains("Images: 4"), "{}", said(&register));
}

/// Stands between a client and the HTTP port, and holds the first connection up behind so many bytes.
struct Gate {
    address: String,
    /// The port behind, which another server may have later.
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
                            // Nothing more passes on this connection.
                            return;
                        }
                    }
                    drop(to.shutdown(Shutdown::Write));
                });
            }
        });
        gate
    }

    /// Cuts all connections; new ones lead to another port.
    fn lead_to(&self, behind: &str) {
        *self.behind.lock().unwrap() = behind.to_owned();
        for connection in self.held.lock().unwrap().drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

#[tokio::test]
async fn a_push_goes_on_after_the_server_was_killed_and_restarted() {
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
    assert!(pushed.status.success(), "{}", said(&pushed));
    assert!(said(&pushed).contains("resuming the upload"), "{}", said(&pushed));
    let dataset = server.dataset("faces").await.unwrap();
    assert_eq!(
        (dataset.state(), dataset.images),
        (DatasetState::Ready, 120)
    );

    // The same images by another way are the same dataset.
    let again = server.visage(&[
        "dataset",
        "register",
        faces.to_str().unwrap(),
        "--name",
        "same",
    ]);
    assert!(again.status.success(), "{}", said(&again));
    let same = server.dataset("same").await.unwrap();
    assert_eq!(same.report.unwrap().digest, dataset.report.unwrap().digest);
    let list = server.visage(&["dataset", "list"]);
    let lines: Vec<String> = said(&list).lines().map(str::to_owned).collect();
    assert!(
        lines[1].starts_with("same") && lines[2].starts_with("faces"),
        "{lines:?}"
    );
    let taken = server.visage(&[
        "dataset",
        "push",
        faces.to_str().unwrap(),
        "--name",
        "faces",
    ]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(
        said(&taken).contains("datasets/faces already exists"),
        "{}",
        said(&taken)
    );
    let deleted = server.visage(&["dataset", "delete", "faces"]);
    assert!(deleted.status.success(), "{}", said(&deleted));
    assert!(!Path::new(&dataset.path).exists());
}

#[tokio::test]
async fn a_pushed_archive_with_a_manifest_is_a_dataset_and_a_hostile_one_is_told() {
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
    let pushed = server.visage(&[
        "dataset",
        "push",
        archive.to_str().unwrap(),
        "--name",
        "labelled",
    ]);
    assert!(pushed.status.success(), "{}", said(&pushed));
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
    let pushed = server.visage(&[
        "dataset",
        "push",
        hostile.to_str().unwrap(),
        "--name",
        "hostile",
    ]);
    assert_eq!(pushed.status.code(), Some(1));
    assert!(
        said(&pushed).contains("refused for its entry \"../../30_out.jpg\""),
        "{}",
        said(&pushed)
    );
    assert!(!server.path("30_out.jpg").exists() && !server.path("data/30_out.jpg").exists());
    tokio::time::timeout(Duration::from_secs(60), server.delete_dataset("hostile"))
        .await
        .unwrap()
        .unwrap();
}

/// Images are recognised by their content on both sides, and the report of an archive lists what it
/// had beside them.
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
        let pushed = server.visage(&["dataset", "push", source.to_str().unwrap(), "--name", name]);
        let shown = said(&pushed);
        assert!(pushed.status.success(), "{shown}");
        assert!(
            shown.contains("9 train, 3 validation, 0 test images"),
            "{shown}"
        );
        let warning = "warning: 1 file is ignored because the content is not a JPEG";
        assert!(shown.contains(warning), "{shown}");
    }
}
