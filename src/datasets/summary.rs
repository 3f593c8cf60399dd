//! Statistics and samples of a dataset.

use std::{io, path::Path};

use fs_err as fs;
use image::{codecs::jpeg::JpegEncoder, imageops};

use crate::{
    dataset::{
        self, DEFAULT_SEED, Dataset, DatasetSpec, Purpose, Roots, Sample, Split, Verify, age_bands,
        dataset_report, split_name, split_origin,
    },
    files,
    imaging::{self, Limits},
    proto::{v1, validation::Check},
};

/// Most samples of a dataset.
const MAX_SAMPLES: usize = 24;
/// Longest side of a thumbnail in pixels.
const SAMPLE_SIDE: u32 = 96;
/// JPEG quality of a thumbnail, 1 to 100.
const SAMPLE_QUALITY: u8 = 80;

pub(super) struct Summary {
    pub(super) images: u64,
    pub(super) bytes: u64,
    pub(super) report: v1::DatasetReport,
    pub(super) ages: Vec<v1::AgeBand>,
    pub(super) split_origin: v1::SplitOrigin,
    pub(super) ignored: u64,
    pub(super) samples: Vec<v1::DatasetSample>,
}

/// Decodes every image of a dataset and writes thumbnails into a directory, which is replaced.
///
/// # Errors
/// As [`dataset::load`]; a dataset that a training would refuse has a warning instead.
pub(super) fn summarize(
    path: &Path,
    roots: &Roots,
    options: dataset::Options,
    samples: &Path,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<Summary, dataset::Error> {
    let options = dataset::Options {
        verify: Verify::Decode,
        purpose: Purpose::Check,
        background: true,
        ..options
    };
    let mut report_progress = |_, done, total| progress(done, total);
    let dataset = dataset::load(path, roots, &options, &mut report_progress, cancelled)?;
    let report = &dataset.report;
    Ok(Summary {
        images: report.accepted,
        bytes: report.train.bytes + report.val.bytes + report.test.bytes,
        ages: age_bands(&dataset),
        split_origin: split_origin(&dataset),
        ignored: report.ignored,
        samples: write_samples(&dataset, options.limits, samples)?,
        report: dataset_report(&dataset),
    })
}

/// Returns the options of a training that sets nothing else, so that splits and digest are equal.
///
/// # Errors
/// A sentence about the age pattern or the columns of the dataset.
pub(super) fn options(dataset: &v1::Dataset, limits: Limits) -> Result<dataset::Options, String> {
    let given = v1::DatasetSpec {
        path: dataset.path.clone(),
        age_pattern: dataset.age_pattern.clone(),
        columns: dataset.columns.clone(),
        ..Default::default()
    };
    let mut check = Check::default();
    let spec = DatasetSpec::read(Some(&given), "", &mut check);
    match check.finish(spec) {
        Ok(spec) => Ok(spec.options(DEFAULT_SEED, limits)),
        Err(violations) => {
            let sentences = violations
                .iter()
                .map(|violation| format!("{} {}", violation.field, violation.description));
            Err(sentences.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Writes thumbnails of images at even steps through all ages.
fn write_samples(
    dataset: &Dataset,
    limits: Limits,
    directory: &Path,
) -> io::Result<Vec<v1::DatasetSample>> {
    let parts = Split::ALL.into_iter();
    let mut all: Vec<(Split, &Sample)> = parts
        .flat_map(|split| {
            dataset
                .split(split)
                .iter()
                .map(move |sample| (split, sample))
        })
        .collect();
    all.sort_by(|(_, one), (_, other)| {
        let by_age = one.age.total_cmp(&other.age);
        by_age.then_with(|| one.name.cmp(&other.name))
    });
    files::remove_dir_if_exists(directory)?;
    fs::create_dir_all(directory)?;
    let count = all.len().min(MAX_SAMPLES);
    let mut written = Vec::new();
    for step in 0..count {
        let (split, sample) = all[step * all.len() / count];
        // A file that changed since the scan is skipped.
        let Some(thumbnail) = thumbnail(&sample.path, limits) else {
            continue;
        };
        let name = format!("{}.jpg", written.len());
        files::write_atomic(&directory.join(name), &thumbnail)?;
        written.push(v1::DatasetSample {
            file: sample.name.clone(),
            split: split_name(split).to_owned(),
            age: f64::from(sample.age),
        });
    }
    Ok(written)
}

/// Returns a thumbnail of the image as JPEG.
fn thumbnail(path: &Path, limits: Limits) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let image = imaging::decode(&bytes, &limits).ok()?;
    let longest = image.width().max(image.height());
    let side = |length: u32| {
        let scaled = u64::from(length) * u64::from(SAMPLE_SIDE) / u64::from(longest.max(1));
        u32::try_from(scaled).unwrap_or(SAMPLE_SIDE).max(1)
    };
    let image = match longest > SAMPLE_SIDE {
        true => imageops::thumbnail(&image, side(image.width()), side(image.height())),
        false => image,
    };
    let mut encoded = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut encoded, SAMPLE_QUALITY);
    image.write_with_encoder(encoder).ok()?;
    Some(encoded)
}
