//! What an image looks like, in 512 bits: the same for a copy that was re-encoded, resized or recoloured, another one for another image.
//!
//! A perceptual hash of the kind pHash: the image in grey on 32×32 pixels, its 16×16 lowest frequencies (discrete cosine transform), and for each a bit
//! that says whether it is above their median. Two hashes are compared by the number of bits in which they differ; of two images that have nothing in
//! common it is about 128 of 256. The hash of the mirrored image is kept beside it.
//!
//! Chosen on the 20,925 different files of UTKFace, aligned faces that look much alike to a hash; gradient hashes of 64, 144 and 256 bits, and median hashes
//! with and without the transform were tried beside it. At a distance of 32 or less it links 1,057 files to 496 groups, at 40 it is 1,093 in 514. Of their pairs,
//! all 20 mirrored ones, 120 others and all 18 that only 40 brings were looked at, and every one showed the same photograph twice; the first two different
//! people came at 42. A JPEG of quality 30, half the size, other brightness, grey, or mirrored stayed within 12 for 99 % of 800 images. Cropped by 5 % they lie at 48
//! in the middle, so crops are not found.

use image::{RgbImage, imageops};
use image_hasher::{HashAlg, Hasher, HasherConfig};

use crate::imaging::Preprocessor;

/// Side in pixels of the image that is transformed: twice that of the hash, which is what the library resizes to.
const SIDE: u32 = 32;
/// Side of the square of frequencies that are kept.
const FREQUENCIES: u32 = 16;
/// An image whose colours deviate less from their means, on the scale of 0 to 255, shows nothing: its bits would be noise of the compression.
const LEAST_DEVIATION: f64 = 4.0;

/// Bits of a hash.
pub(super) const BITS: u32 = FREQUENCIES * FREQUENCIES;

/// A hash.
pub(super) type Hash = [u64; 4];

/// What one image looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) plain: Hash,
    pub(super) mirrored: Hash,
}

impl Fingerprint {
    /// How many bits differ, and whether it takes the mirrored image to have so few.
    pub(super) fn distance(&self, other: &Self) -> (u32, bool) {
        let plain = differing(&self.plain, &other.plain);
        // Mirroring either of them gives nearly the same, but for rounding.
        let mirrored =
            differing(&self.mirrored, &other.plain).min(differing(&self.plain, &other.mirrored));
        (plain.min(mirrored), mirrored < plain)
    }
}

/// The number of bits in which two hashes differ.
pub(super) fn differing(one: &Hash, other: &Hash) -> u32 {
    let words = one.iter().zip(other);
    words.map(|(one, other)| (one ^ other).count_ones()).sum()
}

/// Makes fingerprints, and keeps its working memory between them. One for each thread.
pub(super) struct Fingerprinter {
    preprocessor: Preprocessor,
    hasher: Hasher<[u8; 32]>,
}

impl Fingerprinter {
    pub(super) fn new() -> Self {
        let hasher = HasherConfig::with_bytes_type::<[u8; 32]>()
            .hash_alg(HashAlg::Median)
            .hash_size(FREQUENCIES, FREQUENCIES)
            .preproc_dct()
            .to_hasher();
        Fingerprinter {
            preprocessor: Preprocessor::new(),
            hasher,
        }
    }

    /// None for an image without contrast.
    pub(super) fn fingerprint(&mut self, image: RgbImage) -> Option<Fingerprint> {
        let small = self.preprocessor.resize(image, SIDE);
        if deviation(&small) < LEAST_DEVIATION {
            return None;
        }
        Some(Fingerprint {
            plain: self.hash(&small),
            mirrored: self.hash(&imageops::flip_horizontal(&small)),
        })
    }

    fn hash(&self, small: &RgbImage) -> Hash {
        let hash = self.hasher.hash_image(small);
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        std::array::from_fn(|index| u64::from_le_bytes(words[index]))
    }
}

/// The largest of the standard deviations of red, green and blue.
fn deviation(image: &RgbImage) -> f64 {
    let count = f64::from(image.width() * image.height());
    let of_channel = |channel: usize| {
        let samples = || image.pixels().map(|pixel| f64::from(pixel.0[channel]));
        let mean = samples().sum::<f64>() / count;
        let squares: f64 = samples().map(|sample| (sample - mean).powi(2)).sum();
        (squares / count).sqrt()
    };
    [0, 1, 2].map(of_channel).into_iter().fold(0.0, f64::max)
}
