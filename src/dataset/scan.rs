//! The scan: reads every listed file once, on a few threads, hashes it and checks that it is an
//! image within the limits.

use std::{
    io::{self, Read},
    num::NonZeroUsize,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use fs_err as fs;
use sha2::{Digest, Sha256};

use crate::{imaging, priority};

use super::{
    Error, Options, Roots, Verify,
    candidate::{Candidate, Outcome, Scanned},
    fingerprint::Fingerprinter,
    kind::{HEAD_BYTES, is_image_content},
    progress::{QUEUE, receive},
    report::RejectReason,
};

/// Scans all candidates and returns the outcomes in the order of the candidates.
pub(super) fn scan(
    candidates: &[Candidate],
    roots: &Roots,
    options: &Options,
    verify: Verify,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Outcome>, Error> {
    let scanner = Scanner {
        candidates,
        roots,
        options,
        verify,
        next: AtomicUsize::new(0),
    };
    let count = NonZeroUsize::new(candidates.len());
    let threads = options.threads.min(count.unwrap_or(NonZeroUsize::MIN));
    // Every entry is overwritten, unless a thread panics, which ends the scope with a panic.
    let mut outcomes = vec![Err(RejectReason::Unreadable); candidates.len()];
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(QUEUE);
        for _ in 0..threads.get() {
            let sender = sender.clone();
            let scanner = &scanner;
            scope.spawn(move || scanner.run(&sender));
        }
        drop(sender);
        let accept = |(index, outcome): (usize, Outcome)| {
            outcomes[index] = outcome;
            1
        };
        receive(receiver, candidates.len(), accept, progress, cancelled)
    })?;
    Ok(outcomes)
}

struct Scanner<'a> {
    candidates: &'a [Candidate],
    roots: &'a Roots,
    options: &'a Options,
    verify: Verify,
    next: AtomicUsize,
}

impl Scanner<'_> {
    fn run(&self, results: &SyncSender<(usize, Outcome)>) {
        if self.options.background {
            priority::lower_thread_priority(priority::MAX_NICE);
        }
        let mut buffer = Vec::new();
        let mut fingerprinter = Fingerprinter::new();
        loop {
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
        // Opening a named pipe would block forever.
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
        // A file that grows meanwhile is cut one byte past the limit, which then refuses it.
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

pub(super) fn reason_of_io(error: &io::Error) -> RejectReason {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        RejectReason::Missing
    } else if kind == io::ErrorKind::PermissionDenied {
        RejectReason::PermissionDenied
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
        // Reading an image never returns the last one.
        imaging::Error::Corrupt { .. } | imaging::Error::InputSpec { .. } => RejectReason::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_file_has_a_reason_of_its_own() {
        for (kind, label) in [
            (io::ErrorKind::NotFound, "missing"),
            (io::ErrorKind::PermissionDenied, "permission_denied"),
            (io::ErrorKind::NotADirectory, "unreadable"),
        ] {
            assert_eq!(reason_of_io(&kind.into()).label(), label);
        }
    }
}
