//! Reads every listed file once, on a few threads: its hash, and whether it is an image within the limits.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::fingerprint::{Fingerprint, Fingerprinter};
use super::kind::{HEAD_BYTES, is_image_content};
use super::labels::Labels;
use super::load::Options;
use super::report::{RejectReason, Rejects};
use super::{Error, LeftOutColumns, Roots, Skipped, Split};
use crate::{imaging, priority};

/// How thoroughly the scan looks at each image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Format and dimensions; of a JPEG also that no image data is missing. Damage inside of other formats is found by the
    /// trainer.
    #[default]
    HeaderOnly,
    /// The whole image is decoded, which takes several times as long.
    Decode,
    /// It is decoded, and what it looks like is kept, so that near-duplicates can be found.
    Fingerprint,
}

/// An image that a directory or a manifest names, before it is opened.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Relative to the data set, with `/`.
    pub(super) name: String,
    /// Absolute, links not resolved.
    pub(super) path: PathBuf,
    pub(super) age: f32,
    pub(super) labels: Labels,
    pub(super) split: Option<Split>,
    /// True if the name does not decide whether it is an image.
    pub(super) by_content: bool,
}

/// What a directory or a manifest holds. The candidates are sorted by name.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) candidates: Vec<Candidate>,
    pub(super) rejects: Rejects,
    /// Files that are no images.
    pub(super) ignored: u64,
    /// Those of them that may have been meant as images.
    pub(super) skipped: Skipped,
    /// Whether the candidates have a part already.
    pub(super) split_given: bool,
    /// Columns that are not used as labels.
    pub(super) left_out_columns: LeftOutColumns,
    /// Sentences for the owner of the data.
    pub(super) warnings: Vec<String>,
    /// Sentences about how the ages or the text were read: warnings, and the explanation of a refusal.
    pub(super) doubts: Vec<String>,
}

/// An image that can be used.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    /// With all links resolved, and under a root.
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) content_hash: [u8; 32],
    /// None also for an image without contrast.
    pub(super) fingerprint: Option<Fingerprint>,
}

pub(super) type Outcome = Result<Scanned, RejectReason>;

/// How often the caller hears of progress and is asked whether to go on.
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(50);

/// Results waiting for the collecting thread; it does next to nothing with one, so the queue is rarely full.
pub(super) const QUEUE: usize = 256;

/// Scans all candidates; the outcomes are in the order of the candidates.
///
/// `progress` gets (scanned, total) on this thread about twenty times a second and once at the end.
pub(super) fn scan(
    candidates: &[Candidate],
    roots: &Roots,
    options: &Options,
    verify: Verify,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Outcome>, Error> {
    let shared = Shared {
        candidates,
        roots,
        options,
        verify,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    let threads = options.threads.min(
        // At least one, so that an empty list ends like any other.
        NonZeroUsize::new(candidates.len()).unwrap_or(NonZeroUsize::MIN),
    );
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(QUEUE);
        for _ in 0..threads.get() {
            let sender = sender.clone();
            let shared = &shared;
            scope.spawn(move || shared.work(&sender));
        }
        drop(sender);
        let outcomes = collect(receiver, candidates.len(), progress, cancelled);
        // Leaving the scope waits for the threads; after a cancel they end with the file they are at.
        shared.stop.store(true, Ordering::Relaxed);
        outcomes
    })
}

fn collect(
    receiver: Receiver<(usize, Outcome)>,
    total: usize,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Outcome>, Error> {
    // Every place is overwritten; a thread that died would leave this, and the scope passes its panic on.
    let mut outcomes = vec![Err(RejectReason::Unreadable); total];
    let mut scanned = 0;
    let mut last_report = Instant::now();
    loop {
        match receiver.recv_timeout(REPORT_EVERY) {
            Ok((index, outcome)) => {
                outcomes[index] = outcome;
                scanned += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if last_report.elapsed() >= REPORT_EVERY {
            last_report = Instant::now();
            if cancelled() {
                return Err(Error::Cancelled);
            }
            progress(scanned, total);
        }
    }
    if cancelled() {
        return Err(Error::Cancelled);
    }
    progress(scanned, total);
    Ok(outcomes)
}

struct Shared<'a> {
    candidates: &'a [Candidate],
    roots: &'a Roots,
    options: &'a Options,
    verify: Verify,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Shared<'_> {
    fn work(&self, results: &SyncSender<(usize, Outcome)>) {
        if self.options.background {
            priority::lower_thread_priority(priority::MAX_NICE);
        }
        let mut buffer = Vec::new();
        let mut fingerprinter = Fingerprinter::new();
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = self.candidates.get(index) else {
                return;
            };
            let outcome = self.check(candidate, &mut buffer, &mut fingerprinter);
            if results.send((index, outcome)).is_err() {
                return;
            }
        }
    }

    fn check(
        &self,
        candidate: &Candidate,
        buffer: &mut Vec<u8>,
        fingerprinter: &mut Fingerprinter,
    ) -> Outcome {
        let path = fs::canonicalize(&candidate.path).map_err(|error| reason_of_io(&error))?;
        if !self.roots.contains(&path) {
            return Err(RejectReason::OutsideRoot);
        }
        let metadata = fs::metadata(&path).map_err(|error| reason_of_io(&error))?;
        // Opening a named pipe would wait for ever.
        if !metadata.is_file() {
            return Err(RejectReason::Unreadable);
        }
        let limits = &self.options.limits;
        let mut file = fs::File::open(&path).map_err(|error| reason_of_io(&error))?;
        buffer.clear();
        if candidate.by_content {
            (&mut file)
                .take(HEAD_BYTES)
                .read_to_end(buffer)
                .map_err(|error| reason_of_io(&error))?;
            if !is_image_content(buffer) {
                return Err(RejectReason::UnsupportedFormat);
            }
        }
        limits
            .check_bytes(metadata.len())
            .map_err(|error| reason_of_image(&error))?;
        // A file that grows meanwhile is cut one byte past the limit and refused by it below.
        let rest = (limits.max_bytes + 1).saturating_sub(buffer.len() as u64);
        file.take(rest)
            .read_to_end(buffer)
            .map_err(|error| reason_of_io(&error))?;
        let fingerprint = match self.verify {
            Verify::HeaderOnly => imaging::inspect(buffer, limits).map(|_| None),
            Verify::Decode => imaging::decode(buffer, limits).map(|_| None),
            Verify::Fingerprint => {
                imaging::decode(buffer, limits).map(|image| fingerprinter.fingerprint(image))
            }
        };
        let fingerprint = fingerprint.map_err(|error| reason_of_image(&error))?;
        Ok(Scanned {
            path,
            bytes: buffer.len() as u64,
            content_hash: Sha256::digest(buffer.as_slice()).into(),
            fingerprint,
        })
    }
}

fn reason_of_io(error: &io::Error) -> RejectReason {
    if error.kind() == io::ErrorKind::NotFound {
        RejectReason::Missing
    } else {
        RejectReason::Unreadable
    }
}

fn reason_of_image(error: &imaging::Error) -> RejectReason {
    match error {
        imaging::Error::Empty => RejectReason::Empty,
        imaging::Error::TooLarge { .. } => RejectReason::TooLarge,
        imaging::Error::UnsupportedFormat { .. } => RejectReason::UnsupportedFormat,
        imaging::Error::Dimensions { .. } => RejectReason::Dimensions,
        // Reading an image never gives the last one.
        imaging::Error::Corrupt { .. } | imaging::Error::InputSpec { .. } => RejectReason::Corrupt,
    }
}
