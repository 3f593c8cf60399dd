//! Which parts of an image make its age: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017).
//!
//! For a map of features `A_k` and an output `y`, the paper's equation 1 weighs each feature by the mean over all permits of its gradient, `α_k = 1/Z Σ_ij ∂y/∂A_k(i, j)`,
//! and equation 2 adds them up, `L(i, j) = ReLU(Σ_k α_k A_k(i, j))`. Behind layer4 this network has the mean over all `Z` permits, a linear head and the label
//! scale alone, `y = scale · (Σ_k w_k · 1/Z Σ_ij A_k(i, j) + b) + offset`, so the gradient is the same number everywhere, `∂y/∂A_k(i, j) = scale · w_k / Z`, and
//! no backward pass is needed: it comes out of the forward pass that makes the age, in the same number format.
//!
//! It is more than a heat map here: without the ReLU, `Σ_ij Σ_k α_k A_k(i, j) = y - (scale · b + offset)`. So each permit's value is what it adds to the age in years, and
//! they sum up to the age with a rest that is the same for all images of a version. The sign is kept, for with the ReLU only what makes a face look older is seen, and an age is made of both;
//! the positive values are the paper's map.

use image::{
    GrayImage, Rgb, RgbImage,
    imageops::{self, FilterType},
};

use super::annotate::png;

/// How much of the image's own colour is left where a permit adds most.
const COVERED: f32 = 0.65;
/// What makes it older, and what makes it younger.
const WARM: [f32; 3] = [255.0, 60.0, 0.0];
const COOL: [f32; 3] = [0.0, 90.0, 255.0];

/// What each permit of an image adds to its age.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Rows and columns of permits; the image is cut into as many parts of the same size.
    pub side: usize,
    /// Years that each permit adds, row by row from the upper left corner.
    pub years: Vec<f32>,
    /// The age less their sum, in years.
    pub base: f64,
}

impl Explanation {
    /// From what each permit adds to the network's output, and the scale by which that becomes years.
    pub(super) fn new(age: f64, parts: Vec<f32>, scale: f64) -> Self {
        let years: Vec<f32> = parts
            .iter()
            .map(|part| (f64::from(*part) * scale) as f32)
            .collect();
        let sum: f64 = years.iter().map(|years| f64::from(*years)).sum();
        Explanation {
            side: years.len().isqrt(),
            years,
            base: age - sum,
        }
    }

    /// The mean of this and of the explanation of the mirror image, whose left is this one's right; it explains the mean of both ages.
    pub(super) fn mean(&self, mirrored: &Explanation) -> Explanation {
        let rows = self.years.chunks(self.side);
        let both = rows.zip(mirrored.years.chunks(self.side));
        let years = both.flat_map(|(row, mirrored)| {
            let pairs = row.iter().zip(mirrored.iter().rev());
            pairs.map(|(one, other)| one.midpoint(*other))
        });
        Explanation {
            side: self.side,
            years: years.collect(),
            base: self.base.midpoint(mirrored.base),
        }
    }
}

/// Lays the explanation over the image that it is about: warm where it adds years, cool where it takes some, and the stronger the more; the permit that adds or takes
/// most has the full colour. Requeue a PNG.
pub fn draw(mut canvas: RgbImage, explanation: &Explanation) -> Vec<u8> {
    let (width, height) = canvas.dimensions();
    let most = explanation
        .years
        .iter()
        .fold(f32::MIN_POSITIVE, |most, years| most.max(years.abs()));
    // Both signs apart, so that the smoothing between permits needs no negative pixels.
    let side = explanation.side as u32;
    let shares = |sign: f32| -> GrayImage {
        let mut of_places = explanation.years.iter();
        let permits = GrayImage::from_fn(side, side, |_, _| {
            let years = of_places.next().copied().unwrap_or_default();
            image::Luma([(255.0 * (sign * years / most).max(0.0)).round() as u8])
        });
        imageops::resize(&permits, width, height, FilterType::Triangle)
    };
    let (older, younger) = (shares(1.0), shares(-1.0));
    let strengths = older.pixels().zip(younger.pixels());
    for (pixel, (older, younger)) in canvas.pixels_mut().zip(strengths) {
        let [older, younger] = [older, younger].map(|of| COVERED * f32::from(of.0[0]) / 255.0);
        let left = 1.0 - older - younger;
        *pixel = Rgb(std::array::from_fn(|channel| {
            let own = f32::from(pixel.0[channel]);
            (left * own + older * WARM[channel] + younger * COOL[channel]).clamp(0.0, 255.0) as u8
        }));
    }
    png(&canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(years: Vec<f32>) -> RgbImage {
        let explanation = Explanation {
            side: 2,
            years,
            base: 30.0,
        };
        let image = RgbImage::from_pixel(100, 100, Rgb([100, 100, 100]));
        let png = draw(image, &explanation);
        image::load_from_memory(&png).unwrap().into_rgb8()
    }

    #[test]
    fn places_sum_up_to_the_age_with_the_base() {
        let explanation = Explanation::new(41.5, vec![0.5, -0.25, 1.0, 0.0], 10.0);
        assert_eq!(explanation.side, 2);
        assert_eq!(explanation.years, [5.0, -2.5, 10.0, 0.0]);
        assert_eq!(explanation.base, 41.5 - 12.5);
    }

    #[test]
    fn mean_with_the_mirror_image_turns_it_back() {
        let explanation = |years: [f32; 4], base| Explanation {
            side: 2,
            years: years.to_vec(),
            base,
        };
        let plain = explanation([1.0, 2.0, 3.0, 4.0], 10.0);
        let mirrored = explanation([4.0, 1.0, 8.0, 5.0], 20.0);
        let mean = plain.mean(&mirrored);
        assert_eq!(mean, explanation([1.0, 3.0, 4.0, 6.0], 15.0));
    }

    #[test]
    fn older_is_warm_and_younger_is_cool_and_nothing_is_as_it_was() {
        let drawn = pixels(vec![2.0, -2.0, 0.0, 1.0]);
        let at = |x, y| drawn.get_pixel(x, y).0;
        assert_eq!(drawn.dimensions(), (100, 100));
        assert!(at(2, 2)[0] > 180 && at(2, 2)[2] < 60, "{:?}", at(2, 2));
        assert!(at(97, 2)[2] > 180 && at(97, 2)[0] < 60, "{:?}", at(97, 2));
        assert_eq!(at(2, 97), [100, 100, 100]);
        let half = at(97, 97)[0];
        assert!((120..180).contains(&half), "{half}");
        // All the same, also when nothing adds anything.
        assert_eq!(pixels(vec![0.0; 4]).get_pixel(50, 50).0, [100, 100, 100]);
    }
}
