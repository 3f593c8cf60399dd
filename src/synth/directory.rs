//! The directory of images: names, atomic writes, and the comparison with an earlier result.

use std::{
    collections::BTreeSet,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use fs_err as fs;
use image::codecs::jpeg::JpegEncoder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::person::Person;

/// Allowed sides of an image in pixels.
pub(super) const SIZES: RangeInclusive<u32> = 32..=2048;
/// Most images of a directory; the stamp in a name has nine digits for the index.
const MAX_IMAGES: usize = 1_000_000_000;
/// Earlier images that are drawn again and compared.
const SAMPLES: usize = 4;
/// Suffix of the name of an image that is being written.
pub(super) const PARTIAL: &str = ".partial";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of images, 1 to 1,000,000,000.
    pub count: usize,
    /// Selects the persons; another seed draws others.
    pub seed: u64,
    /// The side of the square images in pixels, 32 to 2048.
    pub size: u32,
    /// Ages in years, both ends included; each is drawn about equally often.
    pub ages: RangeInclusive<u8>,
}

impl Default for Options {
    /// 500 images of 200 pixels, like UTKFace's, of persons of 1 to 90 years.
    fn default() -> Self {
        Self {
            count: 500,
            seed: 0,
            size: 200,
            ages: 1..=90,
        }
    }
}

/// The result of [`write_faces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Images that this call wrote.
    pub written: usize,
    /// Images of an earlier call with the same options.
    pub kept: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("count must be 1 to {MAX_IMAGES}, got {found}")]
    Count { found: usize },
    #[error("size must be {} to {} pixels, got {found}", SIZES.start(), SIZES.end())]
    Size { found: u32 },
    /// The range is empty.
    #[error("ages must start with the lower one, got {first} to {last}")]
    Ages { first: u8, last: u8 },
    /// The directory contains an entry that these options do not create.
    #[error(
        "{} contains {entry:?}, which these options do not create; choose an empty or a new \
         directory, or repeat the options of the earlier run",
        directory.display()
    )]
    Foreign { directory: PathBuf, entry: String },
    /// The message of the cause contains the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("failed to encode {name}")]
    Encode {
        name: String,
        source: image::ImageError,
    },
}

/// Fills the directory `dir` with `options.count` images, and creates it if it is missing.
///
/// `progress` receives the number of images after each one. An image appears under its name only
/// when it is complete, so an interrupted call can be repeated: it adds the missing images.
///
/// # Errors
/// - [`Error::Count`], [`Error::Size`] or [`Error::Ages`] for options out of range.
/// - [`Error::Foreign`] if the directory contains anything that these options do not create;
///   nothing is changed then.
/// - [`Error::Io`] and [`Error::Encode`].
pub fn write_faces(
    dir: &Path,
    options: &Options,
    mut progress: impl FnMut(usize),
) -> Result<Summary, Error> {
    check(options)?;
    fs::create_dir_all(dir)?;
    let present = earlier_images(dir, options)?;
    let mut summary = Summary {
        written: 0,
        kept: 0,
    };
    for index in 0..options.count {
        let (name, person, mut rng) = sample(options, index);
        if present.contains(&name) {
            summary.kept += 1;
        } else {
            let partial = dir.join(format!("{name}{PARTIAL}"));
            fs::write(&partial, encode(&name, &person, options.size, &mut rng)?)?;
            fs::rename(&partial, dir.join(&name))?;
            summary.written += 1;
        }
        progress(summary.kept + summary.written);
    }
    Ok(summary)
}

fn check(options: &Options) -> Result<(), Error> {
    if options.count == 0 || options.count > MAX_IMAGES {
        return Err(Error::Count {
            found: options.count,
        });
    }
    if !SIZES.contains(&options.size) {
        return Err(Error::Size {
            found: options.size,
        });
    }
    if options.ages.is_empty() {
        return Err(Error::Ages {
            first: *options.ages.start(),
            last: *options.ages.end(),
        });
    }
    Ok(())
}

/// Returns the names that are already in `dir`; refuses entries that these options do not create.
///
/// A name depends on every option but the size, so a few images are drawn again and compared.
fn earlier_images(dir: &Path, options: &Options) -> Result<BTreeSet<String>, Error> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        found.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    if found.is_empty() {
        return Ok(found);
    }
    let foreign = |entry: &str| Error::Foreign {
        directory: dir.to_path_buf(),
        entry: entry.to_owned(),
    };
    let expected: BTreeSet<String> = (0..options.count)
        .map(|index| sample(options, index).0)
        .collect();
    let own = |entry: &String| expected.contains(entry.strip_suffix(PARTIAL).unwrap_or(entry));
    if let Some(entry) = found.iter().find(|entry| !own(entry)) {
        return Err(foreign(entry));
    }
    found.retain(|entry| expected.contains(entry));
    let mut left = SAMPLES;
    for index in 0..options.count {
        let (name, person, mut rng) = sample(options, index);
        if left == 0 {
            break;
        }
        if !found.contains(&name) {
            continue;
        }
        if fs::read(dir.join(&name))? != encode(&name, &person, options.size, &mut rng)? {
            return Err(foreign(&name));
        }
        left -= 1;
    }
    Ok(found)
}

/// Returns the name of image `index`, its person, and the generator that draws it.
fn sample(options: &Options, index: usize) -> (String, Person, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(index as u64);
    let age = age_of(options, index);
    let person = Person::sample(age, &mut rng);
    let name = format!(
        "{age}_{}_{}_20240101{index:09}.jpg.chip.jpg",
        person.gender as u8, person.race as u8
    );
    (name, person, rng)
}

/// Returns the age of image `index`: multiples of the golden ratio cover the ages evenly for any
/// number of images.
pub(super) fn age_of(options: &Options, index: usize) -> u8 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let first = *options.ages.start();
    let ages = u128::from(*options.ages.end() - first) + 1;
    let turn = (index as u64)
        .wrapping_add(options.seed)
        .wrapping_mul(GOLDEN);
    // Below `ages`, which is at most 256, so it fits and the sum is within the range.
    first + ((u128::from(turn) * ages) >> 64) as u8
}

fn encode(name: &str, person: &Person, size: u32, rng: &mut ChaCha8Rng) -> Result<Vec<u8>, Error> {
    let image = person.draw(size, rng)?;
    let quality = rng.random_range(72..=95);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode_image(&image)
        .map_err(|source| Error::Encode {
            name: name.to_owned(),
            source,
        })?;
    Ok(bytes)
}
