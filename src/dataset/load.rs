//! Loading a dataset: list, scan, split, check, report.

use std::{
    iter,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Error, NearGroup, Options, Phase, Purpose, Report, Roots, Sample, Source, Split, SplitOrigin,
    Verify,
    candidate::{Candidate, Listing, Outcome, Scanned},
    digest::digest,
    grouping::{NearDuplicates, SearchPlan, warning},
    report::{RejectReason, Rejects, age_bands, duplicates, identical, split_report},
    scan::scan,
    source,
};

/// Images with ages, checked and assigned to splits.
///
/// For a training there are at least two training samples and one validation sample; the test
/// split may be empty. See [`Purpose`]. Each split is sorted by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dataset {
    pub train: Vec<Sample>,
    /// Selects the best epoch.
    pub val: Vec<Sample>,
    /// Measures the trained model; may be empty.
    pub test: Vec<Sample>,
    /// SHA-256 in hex over names, contents, ages and splits of all samples.
    pub digest: String,
    /// The digest of the validation split alone: models are comparable where it is equal.
    pub val_digest: String,
    pub report: Report,
    /// Near-duplicates by the name of their first image; `None` unless [`Options::near`] requests
    /// the search.
    pub near: Option<Vec<NearGroup>>,
}

impl Dataset {
    /// Returns a dataset of samples that another process scanned, without a digest and a report.
    #[must_use]
    pub(crate) fn of_samples(train: Vec<Sample>, val: Vec<Sample>) -> Self {
        Dataset {
            train,
            val,
            ..Dataset::default()
        }
    }

    #[must_use]
    pub(crate) fn split(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }

    /// Returns the groups of two or more byte-identical images, each sorted by name, ordered by the
    /// names of their first images.
    #[must_use]
    pub(crate) fn identical(&self) -> Vec<Vec<(Split, &Sample)>> {
        identical(&Split::ALL.map(|split| (split, self.split(split))))
    }
}

/// Loads the dataset at `path`: a directory, a manifest, or a directory with one `manifest.csv` or
/// `manifest.tsv`.
///
/// `progress` gets (phase, done, total) on the calling thread about twenty times a second, and once
/// at the end of each phase. `cancelled` is checked as often and ends the call with
/// [`Error::Cancelled`]. The call blocks, so it does not belong on an async thread.
///
/// # Errors
/// Every variant of [`Error`] except [`Error::Root`] and [`Error::NoResponse`].
pub(crate) fn load(
    path: &Path,
    roots: &Roots,
    options: &Options,
    progress: &mut dyn FnMut(Phase, usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, Error> {
    let started = Instant::now();
    options.validate()?;
    let path = roots.resolve(&path.to_string_lossy())?;
    let roots = &roots.within(&path);
    let (source, mut listing) = source::list(&path, roots, options, cancelled)?;
    let plan = SearchPlan::new(options, listing.split_given);
    // Files whose content decides may not be images; they count once they are read.
    let images = listing.candidates.iter().filter(|file| !file.by_content);
    plan.check_count(&path, images.count())?;
    let verify = match plan.is_empty() {
        true => options.verify,
        false => Verify::Fingerprint,
    };
    let candidates = std::mem::take(&mut listing.candidates);
    let mut scanned = |done, total| progress(Phase::Scan, done, total);
    let outcomes = scan(&candidates, roots, options, verify, &mut scanned, cancelled)?;
    let accepted = accept(candidates, outcomes, &mut listing);
    plan.check_count(&path, accepted.len())?;

    let mut compared = |done, total| progress(Phase::Compare, done, total);
    let near = NearDuplicates::find(plan, &accepted, options, &mut compared, cancelled)?;
    let keys = near.split_keys(&accepted);
    let (samples, positions) = assign_splits(accepted, &keys, options);
    let near = near.into_groups(&positions);

    let split = match listing.split_given {
        true => SplitOrigin::Given,
        false => SplitOrigin::Hashed,
    };
    let checked = Checked {
        path,
        source,
        split,
        counts: samples.each_ref().map(Vec::len),
    };
    let mut warnings = listing.warnings;
    warnings.extend(listing.skipped.warnings());
    warnings.extend(
        checked.rejects(options, &listing.rejects, listing.doubts, || {
            (listing.ignored, listing.skipped.warnings())
        })?,
    );
    warnings.extend(checked.splits(options.purpose)?);

    let [train, val, test] = samples;
    let splits = [
        (Split::Train, train.as_slice()),
        (Split::Val, val.as_slice()),
        (Split::Test, test.as_slice()),
    ];
    let duplicates = duplicates(&splits);
    warnings.extend(duplicates.warnings());
    warnings.extend(near.as_deref().and_then(|near| warning(near, &splits)));
    let rejected = listing.rejects.total();
    let report = Report {
        source,
        split,
        considered: checked.usable() + rejected,
        accepted: checked.usable(),
        rejected,
        ignored: listing.ignored,
        rejects: listing.rejects.into_counts(),
        train: split_report(&train),
        val: split_report(&val),
        test: split_report(&test),
        ages: age_bands(&splits),
        left_out_columns: listing.left_out_columns,
        warnings,
        duplicates,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok(Dataset {
        digest: digest(&splits),
        val_digest: digest(&splits[1..2]),
        train,
        val,
        test,
        report,
        near,
    })
}

/// Returns the usable images and adds the others to the listing's counts.
fn accept(
    candidates: Vec<Candidate>,
    outcomes: Vec<Outcome>,
    listing: &mut Listing,
) -> Vec<(Candidate, Scanned)> {
    let mut accepted = Vec::new();
    for (candidate, outcome) in candidates.into_iter().zip(outcomes) {
        match outcome {
            Ok(scanned) => accepted.push((candidate, scanned)),
            Err(RejectReason::UnsupportedFormat) if candidate.by_content => {
                listing.ignored += 1;
                listing.skipped.not_an_image(candidate.name);
            }
            Err(reason) => listing.rejects.add(reason, candidate.name),
        }
    }
    accepted
}

/// Returns the samples by split, still sorted by name, and the position of each image.
fn assign_splits(
    accepted: Vec<(Candidate, Scanned)>,
    keys: &[[u8; 32]],
    options: &Options,
) -> ([Vec<Sample>; 3], Vec<(Split, usize)>) {
    let mut splits = [const { Vec::new() }; 3];
    let mut positions = Vec::with_capacity(accepted.len());
    for ((candidate, scanned), key) in accepted.into_iter().zip(keys) {
        let split = candidate
            .split
            .unwrap_or_else(|| options.split.assign(options.seed, key));
        let samples = &mut splits[split as usize];
        positions.push((split, samples.len()));
        samples.push(Sample {
            name: candidate.name,
            path: scanned.path,
            age: candidate.age,
            labels: candidate.labels,
            bytes: scanned.bytes,
            content_hash: scanned.content_hash,
        });
    }
    (splits, positions)
}

/// Facts that decide whether a dataset can be used.
struct Checked {
    path: PathBuf,
    source: Source,
    split: SplitOrigin,
    /// Images by split.
    counts: [usize; 3],
}

impl Checked {
    fn usable(&self) -> u64 {
        self.counts.iter().sum::<usize>() as u64
    }

    /// Checks the number of rejects and returns warnings. `ignored` returns the number of ignored
    /// files and sentences about them.
    fn rejects(
        &self,
        options: &Options,
        rejects: &Rejects,
        doubts: Vec<String>,
        ignored: impl FnOnce() -> (u64, Vec<String>),
    ) -> Result<Vec<String>, Error> {
        let (usable, rejected) = (self.usable(), rejects.total());
        let considered = usable + rejected;
        if considered == 0 {
            let (ignored, skipped) = ignored();
            return Err(Error::Empty {
                path: self.path.clone(),
                ignored,
                skipped,
            });
        }
        if usable > 0 && rejected as f64 <= options.max_reject_share * considered as f64 {
            return Ok(doubts);
        }
        let error = Error::TooManyRejects {
            path: self.path.clone(),
            rejected,
            considered,
            limit: options.max_reject_share,
            reasons: iter::once(rejects.sentence())
                .chain(doubts)
                .collect::<Vec<_>>()
                .join("; "),
        };
        if usable == 0 || options.purpose != Purpose::Check {
            return Err(error);
        }
        Ok(vec![format!("a training would fail: {error}")])
    }

    /// Checks that the splits hold what the purpose needs and returns a warning.
    fn splits(&self, purpose: Purpose) -> Result<Option<String>, Error> {
        match (self.trainable(), purpose) {
            (Err(error), Purpose::Training) => Err(error),
            (Err(error), Purpose::Check) => Ok(Some(format!("a training would fail: {error}"))),
            (Ok(()), _) | (Err(_), Purpose::Evaluation) => Ok(None),
        }
    }

    fn trainable(&self) -> Result<(), Error> {
        let (path, usable) = (self.path.clone(), self.usable() as usize);
        let [train, val, _] = self.counts;
        if train < 2 {
            return Err(Error::TooFewTraining {
                path,
                found: train,
                usable,
            });
        }
        if val > 0 {
            return Ok(());
        }
        let remedy = match (self.split, self.source) {
            (SplitOrigin::Hashed, _) => {
                "add images, raise the validation fraction or use another seed"
            }
            (SplitOrigin::Given, Source::Directory) => {
                "add a directory val, or put all images into one directory to have them split"
            }
            (SplitOrigin::Given, Source::Manifest) => {
                "give some rows the split val, or leave the column out to have the images split"
            }
        };
        Err(Error::NoValidation {
            path,
            usable,
            remedy,
        })
    }
}
