//! Uploads over HTTP, which survive a killed server, and the datasets they become.

use std::{io::Write, net::TcpStream, path::Path};

use visage::proto::v1::{DatasetKind, DatasetState, TrainingState};

use crate::support::{
    Answer, Server, ask, by_name, files_of, header, reason, small_spec, text_of, wait_until,
};

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

/// Creates an upload and returns its path and id.
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

    // During a request that the server has received in part.
    let mut broken = TcpStream::connect(&server.http).unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: localhost\r\nupload-offset: 10000\r\ncontent-type: application/offset+octet-stream\r\ncontent-length: {}\r\n\r\n",
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
async fn invalid_upload_requests_are_refused() {
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
    assert!(
        text.contains("must have 1 to 65536 bytes (max_upload_bytes"),
        "{text}"
    );
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
    // The other upload receives no more bytes.
    wait_until("the abandoned upload is removed", || async {
        ask("HEAD", format!("http://{}{path}", server.http), &[], None).0 == 404
    })
    .await;
    assert_eq!(
        reason(&server.create("late", &id).await.unwrap_err()),
        "NO_UPLOAD"
    );
    // The response is 404 as soon as the record is deleted; the bytes are deleted after it.
    let files = || fs_err::read_dir(server.path("data/uploads")).unwrap();
    wait_until("the bytes are removed", || async { files().count() == 0 }).await;
}

#[tokio::test]
async fn a_server_without_uploads_refuses_them_but_registers_datasets() {
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
    let push = server.run(&[
        "dataset",
        "push",
        faces.to_str().unwrap(),
        "--name",
        "faces",
    ]);
    assert_eq!(push.status.code(), Some(1));
    assert!(
        text_of(&push).contains("does not accept uploads"),
        "{}",
        text_of(&push)
    );
    let register = server.run(&["dataset", "register", faces.to_str().unwrap()]);
    assert!(register.status.success(), "{}", text_of(&register));
    assert!(
        text_of(&register).contains("Images: 4"),
        "{}",
        text_of(&register)
    );
}
