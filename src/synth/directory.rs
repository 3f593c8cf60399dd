//! The directory of images: names, safe writing, and recognising an earlier result.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fs_err as fs;
use image::codecs::jpeg::JpegEncoder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::person::Person;

/// The sides that an image may have, in pixels.
pub(super) const SIZES: RangeInclusive<u32> = 32..=2048;
/// The most images of one directory; the stamp in a name has nine digits for the index.
const MOST: usize = 1_000_000_000;
/// How many earlier images are drawn again to recognise a directory.
const SAMPLES: usize = 4;
/// Appended to a name while its image is being written.
pub(super) const PARTIAL: &str = ".partial";

/// What to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of images, 1 to 1,000,000,000.
    pub count: usize,
    /// Chooses the people; a different seed draws different ones.
    pub seed: u64,
    /// The side of the square images in pixels, 32 to 2048.
    pub size: u32,
    /// The ages in years, both ends included; each is drawn about equally often.
    pub ages: RangeInclusive<u8>,
}

impl Default for Options {
    /// 500 images of 200 pixels, as UTKFace's, of people of 1 to 90 years.
    fn default() -> Self {
        Self {
            count: 500,
            seed: 0,
            size: 200,
            ages: 1..=90,
        }
    }
}

/// What a call to [`write_faces`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Images drawn and written by this call.
    pub written: usize,
    /// Images that an earlier call with the same options had left.
    pub kept: usize,
}

/// Why a directory of images could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `count` is out of range.
    #[error("draw {found} images: the count must be 1 to {MOST}")]
    Count {
        /// The count asked for.
        found: usize,
    },
    /// `size` is out of range.
    #[error("draw images of {found} pixels: the size must be {} to {}", SIZES.start(), SIZES.end())]
    Size {
        /// The size asked for.
        found: u32,
    },
    /// `ages` holds no age.
    #[error("draw people of {first} to {last} years: the first age must not be above the last")]
    Ages {
        /// The lower end asked for.
        first: u8,
        /// The upper end asked for.
        last: u8,
    },
    /// The directory holds something that these options do not make.
    #[error("fill {}: it already holds {entry:?}, which these options do not make; name an empty or a new directory, or repeat the options of the earlier run", directory.display())]
    Foreign {
        /// The directory asked for.
        directory: PathBuf,
        /// The first such entry.
        entry: String,
    },
    /// A file or directory could not be read or written; the message of the cause names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An image could not be encoded.
    #[error("encode image {name}")]
    Encode {
        /// The file name of the image.
        name: String,
        /// The reason.
        source: image::ImageError,
    },
}

/// Fills the directory `dir` with `options.count` images and creates it if need be.
///
/// `progress` is called with the number of images there are, after each one. An image appears under its name only
/// when it is complete, so an interrupted call can simply be repeated: it adds what is missing, and does nothing if
/// nothing is.
///
/// # Errors
/// [`Error::Count`], [`Error::Size`] or [`Error::Ages`] for options out of range; [`Error::Foreign`] if the directory holds
/// anything that these options do not make, in which case nothing is changed; [`Error::Io`] and [`Error::Encode`].
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
        let (name, person, mut rng) = cast(options, index);
        if present.contains(&name) {
            summary.kept += 1;
        } else {
            let partial = dir.join(format!("{name}{PARTIAL}"));
            fs::write(
                &partial,
                photograph(&name, &person, options.size, &mut rng)?,
            )?;
            fs::rename(&partial, dir.join(&name))?;
            summary.written += 1;
        }
        progress(summary.kept + summary.written);
    }
    Ok(summary)
}

fn check(options: &Options) -> Result<(), Error> {
    if options.count == 0 || options.count > MOST {
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

/// The names already in `dir`; refuses whatever these options do not make.
///
/// A name depends on every option but the size, hence the few images that are drawn again and compared.
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
        .map(|index| cast(options, index).0)
        .collect();
    let own = |entry: &String| expected.contains(entry.strip_suffix(PARTIAL).unwrap_or(entry));
    if let Some(entry) = found.iter().find(|entry| !own(entry)) {
        return Err(foreign(entry));
    }
    found.retain(|entry| expected.contains(entry));
    let mut left = SAMPLES;
    for index in 0..options.count {
        let (name, person, mut rng) = cast(options, index);
        if left == 0 {
            break;
        }
        if !found.contains(&name) {
            continue;
        }
        if fs::read(dir.join(&name))? != photograph(&name, &person, options.size, &mut rng)? {
            return Err(foreign(&name));
        }
        left -= 1;
    }
    Ok(found)
}

/// Image `index`: its name, who is on it, and the generator that goes on to draw it.
fn cast(options: &Options, index: usize) -> (String, Person, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    rng.set_stream(index as u64);
    let age = age_of(options, index);
    let person = Person::sample(age, &mut rng);
    let name = format!(
        "{age}_{}_{}_20240101{index:09}.jpg.chip.jpg",
        person.gender().code(),
        person.race().code()
    );
    (name, person, rng)
}

/// Multiples of the golden ratio spread evenly over the ages, however many images there are.
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

fn photograph(
    name: &str,
    person: &Person,
    size: u32,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<u8>, Error> {
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
