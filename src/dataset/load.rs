//! Puts it together: list, scan, split, check, report.

use std::iter;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use fs_err as fs;

use super::grouping::{NearDuplicates, NearGroup, SearchPlan, warning};
use super::near::MAX_NEAR_DISTANCE;
use super::report::{RejectReason, age_bands, duplicates, identical, part_report};
use super::scan::{Candidate, Listing, Scanned, scan};
use super::{
    AgePattern, ColumnNames, Error, Labels, Report, Roots, Source, Split, SplitFractions,
    SplitGrouping, SplitOrigin, Verify, digest::digest, directory, manifest,
};
use crate::imaging;

/// Images with ages, checked and split.
///
/// For a training [`load`] gives at least two training and one validation sample; the test part may be empty. See [`Purpose`]. Each part is sorted by name.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What the network learns from.
    pub train: Vec<Sample>,
    /// What decides about the best epoch.
    pub val: Vec<Sample>,
    /// What the finished model is measured on; may be empty.
    pub test: Vec<Sample>,
    /// SHA-256 in hex over names, contents, ages and parts of all samples.
    pub digest: String,
    /// The same over the validation part alone: models are comparable where it is equal.
    pub val_digest: String,
    /// What was found.
    pub report: Report,
    /// Groups of images that look the same, by the name of their first; none unless [`Options::near`] asks for them.
    pub near: Option<Vec<NearGroup>>,
}

impl Dataset {
    /// The samples of a part.
    #[must_use]
    pub fn split(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }

    /// Groups of two or more byte-identical images, each sorted by name, by the name of their first.
    #[must_use]
    pub fn identical(&self) -> Vec<Vec<(Split, &Sample)>> {
        identical(&Split::ALL.map(|split| (split, self.split(split))))
    }
}

/// One image and its age.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Relative to the data set, with `/` on every system.
    pub name: String,
    /// Where to read it: absolute, with all links resolved, under an allowed root when it was scanned.
    pub path: PathBuf,
    /// In years.
    pub age: f32,
    /// Group labels from the name or the manifest.
    pub labels: Labels,
    /// Encoded size.
    pub bytes: u64,
    /// SHA-256 of the encoded bytes.
    pub content_hash: [u8; 32],
}

/// How a data set is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Pattern that reads the age from the path of an image in a directory. Default: the file names begin with the age.
    pub age_pattern: Option<AgePattern>,
    /// Headings of a manifest's columns. Default: `path` or a synonym, `age`, `split`.
    pub columns: ColumnNames,
    /// Ages outside are rejected. Default 0 to 120 years.
    pub ages: AgeRange,
    /// The shares of a split made here. Default 0.1 and 0.1.
    pub split: SplitFractions,
    /// Seed of a split made here. Default 0.
    pub seed: u64,
    /// Which images stay in one part of a split made here. Default: byte-identical ones.
    pub grouping: SplitGrouping,
    /// Look for near-duplicates up to this distance, at most [`MAX_NEAR_DISTANCE`]; every image is decoded for it. Default: none.
    pub near: Option<u32>,
    /// The largest allowed share of rejected images, 0 to 1. Default 0.2.
    pub max_reject_share: f64,
    /// How thoroughly each image is looked at. Default: the header.
    pub verify: Verify,
    /// What the parts must hold. Default: what a training needs.
    pub purpose: Purpose,
    /// What each image may cost.
    pub limits: imaging::Limits,
    /// Scanning threads. Default: as many as the machine runs at once, at most eight.
    pub threads: NonZeroUsize,
    /// Whether these threads let everything else on the machine go first. Default: no.
    pub background: bool,
    /// More images are an error, before they are scanned. Default 10,000,000, at most `u32::MAX`.
    pub max_images: usize,
}

impl Default for Options {
    fn default() -> Self {
        let available = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            age_pattern: None,
            columns: ColumnNames::default(),
            ages: AgeRange::default(),
            split: SplitFractions::default(),
            seed: 0,
            grouping: SplitGrouping::default(),
            near: None,
            max_reject_share: 0.2,
            verify: Verify::default(),
            purpose: Purpose::Training,
            limits: imaging::Limits::default(),
            threads: available.min(const { NonZeroUsize::new(8).expect("8 is not 0") }),
            background: false,
            max_images: 10_000_000,
        }
    }
}

impl Options {
    fn validate(&self) -> Result<(), Error> {
        self.split.validate()?;
        if !(0.0..=1.0).contains(&self.max_reject_share) {
            return Err(Error::Option {
                name: "max_reject_share",
                found: self.max_reject_share.to_string(),
                expected: "a share of 0 to 1",
            });
        }
        let AgeRange { min, max } = self.ages;
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(Error::Option {
                name: "ages",
                found: format!("{min} to {max}"),
                expected: "two finite numbers of years, the smaller first",
            });
        }
        if u32::try_from(self.max_images).is_err() {
            return Err(Error::Option {
                name: "max_images",
                found: self.max_images.to_string(),
                expected: "at most 4294967295",
            });
        }
        if let Some(near) = self.near.filter(|near| *near > MAX_NEAR_DISTANCE) {
            return Err(Error::Option {
                name: "near",
                found: near.to_string(),
                expected: "a distance of at most 40",
            });
        }
        Ok(())
    }
}

/// What a data set is for, and so what its parts must hold at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Two images to train on and one to validate with.
    Training,
    /// One image, in whichever part.
    Evaluation,
    /// The same; what would fail a training, too many rejects included, becomes a warning.
    Check,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Every file is read.
    Scan,
    /// What they look like is compared; only where something asks for it.
    Compare,
}

impl Phase {
    /// `scan` or `compare`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Compare => "compare",
        }
    }
}

/// The ages that are believed, both ends included, in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgeRange {
    /// The youngest.
    pub min: f32,
    /// The oldest.
    pub max: f32,
}

impl Default for AgeRange {
    fn default() -> Self {
        Self {
            min: 0.0,
            max: 120.0,
        }
    }
}

impl AgeRange {
    /// True for an age within the range.
    #[must_use]
    pub fn contains(&self, age: f32) -> bool {
        (self.min..=self.max).contains(&age)
    }
}

/// Reads the data set at `path`: a directory, a manifest, or a directory with one `manifest.csv` or `manifest.tsv`.
///
/// `progress` gets (step, done, total) on the calling thread about twenty times a second, and once at the end of each step. `cancelled` is asked as often and ends the call with [`Error::Cancelled`]. This blocks for as long as the reading
/// takes, so it does not belong on an async thread.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Root`] and [`Error::NoRoots`].
pub fn load(
    path: &Path,
    roots: &Roots,
    options: &Options,
    progress: &mut dyn FnMut(Phase, usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, Error> {
    let started = Instant::now();
    options.validate()?;
    let path = &roots.resolve(&path.to_string_lossy())?;
    let (source, listing) = list(path, roots, options, cancelled)?;
    let Listing {
        candidates,
        mut rejects,
        mut ignored,
        mut skipped,
        split_given,
        left_out_columns,
        mut warnings,
        doubts,
    } = listing;
    let wanted = SearchPlan::of(options, split_given);
    let verify = match wanted.is_any() {
        true => Verify::Fingerprint,
        false => options.verify,
    };
    let mut scanned = |done, total| progress(Phase::Scan, done, total);
    let outcomes = scan(&candidates, roots, options, verify, &mut scanned, cancelled)?;
    let mut accepted = Vec::new();
    for (candidate, outcome) in candidates.into_iter().zip(outcomes) {
        match outcome {
            Ok(scanned) => accepted.push((candidate, scanned)),
            Err(RejectReason::UnsupportedFormat) if candidate.by_content => {
                ignored += 1;
                skipped.not_an_image(candidate.name);
            }
            Err(reason) => rejects.add(reason, candidate.name),
        }
    }
    let mut compared = |done, total| progress(Phase::Compare, done, total);
    let near_duplicates =
        NearDuplicates::find(wanted, &accepted, options, &mut compared, cancelled)?;
    let keys = near_duplicates.split_keys(&accepted);
    let (parts, places) = into_parts(accepted, &keys, options);
    let near = near_duplicates.into_near_groups(&places);
    let [train, val, test] = parts;

    let split = if split_given {
        SplitOrigin::Given
    } else {
        SplitOrigin::Hashed
    };
    let usable = train.len() + val.len() + test.len();
    let rejected = rejects.total();
    let considered = usable as u64 + rejected;
    if considered == 0 {
        return Err(Error::Empty {
            path: path.clone(),
            ignored,
            skipped: skipped.warnings(),
        });
    }
    warnings.extend(skipped.warnings());
    if usable == 0 || rejected as f64 > options.max_reject_share * considered as f64 {
        let error = Error::TooManyRejects {
            path: path.clone(),
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
        warnings.push(format!("a training would fail: {error}"));
    } else {
        warnings.extend(doubts);
    }
    let trainable = check_parts(path, source, split, &train, &val, usable);
    match options.purpose {
        Purpose::Training => trainable?,
        Purpose::Evaluation => {}
        Purpose::Check => {
            if let Err(error) = trainable {
                warnings.push(format!("a training would fail: {error}"));
            }
        }
    }

    let parts = [
        (Split::Train, train.as_slice()),
        (Split::Val, val.as_slice()),
        (Split::Test, test.as_slice()),
    ];
    let duplicates = duplicates(&parts);
    warnings.extend(duplicates.warnings());
    warnings.extend(near.as_deref().and_then(|near| warning(near, &parts)));
    let report = Report {
        source,
        split,
        considered,
        accepted: usable as u64,
        rejected,
        ignored,
        rejects: rejects.into_counts(),
        train: part_report(&train),
        val: part_report(&val),
        test: part_report(&test),
        ages: age_bands(&parts),
        left_out_columns,
        warnings,
        duplicates,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok(Dataset {
        digest: digest(&parts),
        val_digest: digest(&parts[1..2]),
        train,
        val,
        test,
        report,
        near,
    })
}

/// Checks a dataset without reading rows or images: its path, that its kind fits the options, and the header of a manifest.
///
/// Reads at most one megabyte, but blocks, so it does not belong on an async thread.
///
/// # Errors
/// As [`load`], of these.
pub fn check_source(path: &Path, roots: &Roots, options: &Options) -> Result<(), Error> {
    match place(&roots.resolve(&path.to_string_lossy())?, roots, options)? {
        Place::Directory => Ok(()),
        Place::Manifest { file, .. } => manifest::check_header(&file, options),
    }
}

/// Source of the ages of a dataset, with its files.
enum Place {
    /// The names of the files in the directory.
    Directory,
    /// A manifest, whose relative paths count from the directory.
    Manifest { file: PathBuf, directory: PathBuf },
}

fn place(path: &Path, roots: &Roots, options: &Options) -> Result<Place, Error> {
    let place = find_place(path, roots)?;
    match &place {
        Place::Directory if options.columns != ColumnNames::default() => {
            Err(Error::ColumnsOfDirectory {
                path: path.to_path_buf(),
            })
        }
        Place::Manifest { file, .. } if options.age_pattern.is_some() => {
            Err(Error::PatternOfManifest { path: file.clone() })
        }
        Place::Directory | Place::Manifest { .. } => Ok(place),
    }
}

fn find_place(path: &Path, roots: &Roots) -> Result<Place, Error> {
    if fs::metadata(path)?.is_dir() {
        let [csv, tsv] = ["manifest.csv", "manifest.tsv"].map(|name| path.join(name));
        let manifest = match (csv.is_file(), tsv.is_file()) {
            (false, false) => return Ok(Place::Directory),
            (true, true) => {
                let path = path.to_path_buf();
                return Err(Error::AmbiguousManifest { path });
            }
            (true, false) => csv,
            (false, true) => tsv,
        };
        // The manifest may be a link, and must not lead out of the roots either.
        return Ok(Place::Manifest {
            file: roots.resolve(&manifest.to_string_lossy())?,
            directory: path.to_path_buf(),
        });
    }
    let is_manifest = path.is_file()
        && path.extension().is_some_and(|extension| {
            extension.eq_ignore_ascii_case("csv") || extension.eq_ignore_ascii_case("tsv")
        });
    let path = path.to_path_buf();
    match path.parent().filter(|_| is_manifest) {
        Some(directory) => Ok(Place::Manifest {
            directory: directory.to_path_buf(),
            file: path,
        }),
        None => Err(Error::NotADataset { path }),
    }
}

fn list(
    path: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Source, Listing), Error> {
    match place(path, roots, options)? {
        Place::Directory => {
            let listing = directory::list(path, roots, options, cancelled)?;
            Ok((Source::Directory, listing))
        }
        Place::Manifest { file, directory } => {
            let listing = manifest::list(&file, &directory, roots, options, cancelled)?;
            Ok((Source::Manifest, listing))
        }
    }
}

/// The usable candidates by part, still sorted by name, and where each of them went.
fn into_parts(
    accepted: Vec<(Candidate, Scanned)>,
    keys: &[[u8; 32]],
    options: &Options,
) -> ([Vec<Sample>; 3], Vec<(Split, usize)>) {
    let mut parts = [const { Vec::new() }; 3];
    let mut places = Vec::with_capacity(accepted.len());
    for ((candidate, scanned), key) in accepted.into_iter().zip(keys) {
        let split = candidate
            .split
            .unwrap_or_else(|| options.split.assign(options.seed, key));
        let samples = &mut parts[split as usize];
        places.push((split, samples.len()));
        samples.push(Sample {
            name: candidate.name,
            path: scanned.path,
            age: candidate.age,
            labels: candidate.labels,
            bytes: scanned.bytes,
            content_hash: scanned.content_hash,
        });
    }
    (parts, places)
}

fn check_parts(
    path: &Path,
    source: Source,
    split: SplitOrigin,
    train: &[Sample],
    val: &[Sample],
    usable: usize,
) -> Result<(), Error> {
    let path = path.to_path_buf();
    if train.len() < 2 {
        let found = train.len();
        return Err(Error::TooFewTraining {
            path,
            found,
            usable,
        });
    }
    if val.is_empty() {
        let remedy = match (split, source) {
            (SplitOrigin::Hashed, _) => {
                "add images, raise the validation fraction or take another seed"
            }
            (SplitOrigin::Given, Source::Directory) => {
                "add a directory val, or put all images into one directory to have them split"
            }
            (SplitOrigin::Given, Source::Manifest) => {
                "give some rows the split val, or leave the column out to have the images split"
            }
        };
        return Err(Error::NoValidation {
            path,
            usable,
            remedy,
        });
    }
    Ok(())
}
