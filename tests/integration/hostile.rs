//! Malicious image files: each is refused or costs no more than an ordinary image, and the server
//! is unaffected.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::ZlibEncoder};
use tonic::Code;
use visage::proto::v1;

use crate::support::{Server, files_of, reason};

/// Longer than a refusal takes on a busy machine, and shorter than a decoder takes that is misled.
const LONGEST: Duration = Duration::from_secs(20);
/// Maximum growth of the server's memory over all files, in MB; no image is large.
const MOST_MEMORY: u64 = 150;

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = u32::try_from(data.len()).unwrap().to_be_bytes().to_vec();
    chunk.extend_from_slice(kind);
    chunk.extend_from_slice(data);
    let mut sum = crc32fast::Hasher::new();
    sum.update(kind);
    sum.update(data);
    chunk.extend_from_slice(&sum.finalize().to_be_bytes());
    chunk
}

/// A PNG of these chunks after a header with this size and kind.
fn png(width: u32, height: u32, depth: u8, colour: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend_from_slice(&[depth, colour, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(png_chunk(b"IHDR", &header));
    chunks.iter().for_each(|chunk| file.extend(chunk));
    file.extend(png_chunk(b"IEND", &[]));
    file
}

/// This many zeros, compressed to a thousandth.
fn deflated(megabytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..megabytes).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}

fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, marker][..], &length, data].concat()
}

/// A JPEG with tables, a frame of one component and this size, and further data.
fn jpeg(width: u16, height: u16, rest: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = vec![8];
    frame.extend_from_slice(&height.to_be_bytes());
    frame.extend_from_slice(&width.to_be_bytes());
    frame.extend_from_slice(&[1, 1, 0x11, 0]);
    // One code of one bit each: no difference to the previous block, and the longest run of empty
    // blocks.
    let table = |class: u8, symbol: u8| {
        let mut table = vec![class, 1];
        table.extend_from_slice(&[0; 15]);
        table.push(symbol);
        segment(0xC4, &table)
    };
    let mut quantisation = vec![0];
    quantisation.extend_from_slice(&[1; 64]);
    let mut file = vec![0xFF, 0xD8];
    file.extend(segment(0xDB, &quantisation));
    file.extend(segment(0xC2, &frame));
    file.extend(table(0x00, 0x00));
    file.extend(table(0x10, 0xE0));
    rest.iter().for_each(|part| file.extend(part));
    file.extend_from_slice(&[0xFF, 0xD9]);
    file
}

/// A progressive JPEG that scans many pixels repeatedly in few bytes.
fn jpeg_of_many_scans(side: u16, scans: usize) -> Vec<u8> {
    let blocks = usize::from(side).div_ceil(8).pow(2);
    let scan = |first: u8, last: u8, bytes: usize| {
        [segment(0xDA, &[1, 1, 0, first, last, 0]), vec![0; bytes]].concat()
    };
    let mut parts = vec![scan(0, 0, blocks.div_ceil(8))];
    // Fifteen zero bits are a run over 16,384 blocks.
    let run = (blocks / 16_384 + 1) * 15;
    parts.extend(vec![scan(1, 63, run.div_ceil(8)); scans]);
    jpeg(side, side, &parts)
}

/// An EXIF segment whose directory refers to itself, with an invalid rotation.
fn endless_exif() -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2A\0\0\0\x08".to_vec();
    exif.extend_from_slice(&[0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 99, 0, 0]);
    exif.extend_from_slice(&[0, 0, 0, 8]);
    segment(0xE1, &exif)
}

fn bmp(width: i32, height: i32, depth: u16, compression: u32, colours: u32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    let numbers = |values: &[u32]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let first: Vec<u8> = numbers(&[200, 0, 54, 40]);
    file.extend(first);
    file.extend_from_slice(&width.to_le_bytes());
    file.extend_from_slice(&height.to_le_bytes());
    file.extend_from_slice(&1_u16.to_le_bytes());
    file.extend_from_slice(&depth.to_le_bytes());
    let rest: Vec<u8> = numbers(&[compression, 0, 1, 1, colours, 0]);
    file.extend(rest);
    file.extend_from_slice(&[0xFF; 146]);
    file
}

fn webp(chunks: &[(&[u8; 4], Vec<u8>)], claimed: u32) -> Vec<u8> {
    let mut file = [b"RIFF", &claimed.to_le_bytes()[..], b"WEBP"].concat();
    for (kind, data) in chunks {
        file.extend_from_slice(*kind);
        file.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        file.extend_from_slice(data);
    }
    file
}

/// All files with their names.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = |megabytes| png_chunk(b"IDAT", &deflated(megabytes));
    let text = |kind: &[u8; 4], megabytes| {
        let profile = [&b"name\0\0"[..], &deflated(megabytes)].concat();
        png_chunk(kind, &profile)
    };
    // Flags, and width and height minus one in three bytes each: 16,384 pixels.
    let canvas = |flags: u8| vec![flags, 0, 0, 0, 0xFF, 0x3F, 0, 0xFF, 0x3F, 0];
    let frames = [0; 16].to_vec();
    vec![
        (
            "PNG of one pixel with a hundred million",
            png(1, 1, 8, 2, &[pixels(100)]),
        ),
        (
            "PNG with a palette of a colour and a third, at which its decoder panics",
            png(8, 8, 8, 3, &[png_chunk(b"PLTE", &[9, 9, 9, 9]), pixels(1)]),
        ),
        (
            "PNG with a compressed text of 500 MB",
            png(1, 1, 8, 0, &[text(b"zTXt", 500), pixels(1)]),
        ),
        (
            "PNG with a colour profile of 500 MB",
            png(1, 1, 8, 0, &[text(b"iCCP", 500), pixels(1)]),
        ),
        (
            "PNG with 200,000 texts",
            png(1, 1, 8, 0, &vec![png_chunk(b"tEXt", b"a\0b"); 200_000]),
        ),
        ("PNG without pixels", png(64, 64, 8, 2, &[])),
        ("PNG without width", png(0, 64, 8, 2, &[pixels(1)])),
        ("PNG of too few pixels", png(3000, 3000, 8, 6, &[pixels(1)])),
        ("PNG without its palette", png(64, 64, 8, 3, &[pixels(1)])),
        (
            "PNG of a depth that does not exist",
            png(64, 64, 3, 2, &[pixels(1)]),
        ),
        (
            "PNG of the largest size",
            png(u32::MAX >> 1, u32::MAX >> 1, 16, 6, &[pixels(1)]),
        ),
        ("JPEG of a thousand scans", jpeg_of_many_scans(7000, 1000)),
        ("JPEG of ninety scans", jpeg_of_many_scans(7000, 90)),
        ("JPEG without height", jpeg(64, 0, &[])),
        ("JPEG without scan", jpeg(64, 64, &[])),
        ("JPEG of the largest size", jpeg_of_many_scans(u16::MAX, 1)),
        (
            "JPEG with an endless directory",
            jpeg(
                64,
                64,
                &[
                    endless_exif(),
                    segment(0xDA, &[1, 1, 0, 0, 0, 0]),
                    vec![0; 8],
                ],
            ),
        ),
        (
            "JPEG of segments without length",
            [
                &[0xFF, 0xD8][..],
                &[0xFF, 0xE0, 0, 0].repeat(50_000),
                &[0xFF, 0xD9],
            ]
            .concat(),
        ),
        ("BMP of a negative width", bmp(-64, 64, 24, 0, 0)),
        ("BMP of the least height", bmp(64, i32::MIN, 24, 0, 0)),
        ("BMP of the largest size", bmp(i32::MAX, i32::MAX, 32, 0, 0)),
        ("BMP of a depth that does not exist", bmp(64, 64, 7, 0, 0)),
        ("BMP with too many colours", bmp(64, 64, 8, 0, u32::MAX)),
        ("BMP whose runs leave the image", bmp(64, 64, 8, 1, 256)),
        (
            "WebP of a canvas without a frame",
            webp(&[(b"VP8X", canvas(0))], 100),
        ),
        (
            "WebP of an animation without a frame",
            webp(&[(b"VP8X", canvas(2)), (b"ANIM", vec![0; 6])], 100),
        ),
        (
            "WebP of frames without pixels",
            webp(
                &[
                    (b"VP8X", canvas(2)),
                    (b"ANIM", vec![0; 6]),
                    (b"ANMF", frames),
                ],
                100,
            ),
        ),
        (
            "WebP that claims more than there is",
            webp(&[(b"VP8L", vec![0x2F; 40])], u32::MAX),
        ),
        (
            "WebP of a lossy frame of nothing",
            webp(&[(b"VP8 ", vec![0; 10])], 22),
        ),
    ]
}

/// Peak memory of the server in MB; VmHWM in /proc/PID/status is in kB.
fn peak_memory(server: &Server) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[tokio::test]
async fn malicious_files_are_refused_or_cost_no_more_than_an_image() {
    let server = Server::start(&["--starter"]);
    server.predict().await.unwrap();
    let before = peak_memory(&server);
    let mut costs = Vec::new();
    let mut client = server.predictions();
    for detect_faces in [false, true] {
        for (name, file) in files() {
            let mut request = tonic::Request::new(v1::PredictRequest {
                images: vec![file.into()],
                detect_faces,
                ..Default::default()
            });
            request.set_timeout(LONGEST);
            let before = peak_memory(&server);
            if let Err(status) = client.predict(request).await {
                assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
                assert_eq!(reason(&status), "INVALID_IMAGE", "{name}: {status:?}");
            }
            costs.push((peak_memory(&server) - before, name));
        }
    }
    let grown = peak_memory(&server) - before;
    costs.sort_unstable();
    assert!(
        grown < MOST_MEMORY,
        "the server grew by {grown} MB, most of it by {:?}",
        costs.pop()
    );
    server.predict().await.unwrap();
    let faces = files_of(&server.faces("more", 3, 8));
    let images = faces.iter().map(|face| fs_err::read(face).unwrap().into());
    let request = v1::PredictRequest {
        images: images.collect(),
        ..Default::default()
    };
    let answer = client.predict(request).await.unwrap().into_inner();
    assert_eq!(answer.predictions.len(), 3);
}
