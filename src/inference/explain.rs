//! Contribution of each image region to the age: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual
//! Explanations from Deep Networks via Gradient-based Localization", 2017).
//!
//! For feature maps `A_k` and an output `y`, the paper's equation 1 weights each map by the mean of
//! its gradient over all regions, `α_k = 1/Z Σ_ij ∂y/∂A_k(i, j)`, and equation 2 adds them up,
//! `L(i, j) = ReLU(Σ_k α_k A_k(i, j))`. After layer4 this network has only the mean over all `Z`
//! regions, a linear head and the label scale, `y = scale · (Σ_k w_k · 1/Z Σ_ij A_k(i, j) + b) +
//! offset`, so the gradient is the same everywhere, `∂y/∂A_k(i, j) = scale · w_k / Z`. No backward
//! pass is needed: the contributions come from the forward pass that computes the age, in the same
//! precision.
//!
//! Here they are more than a heat map: without the ReLU, `Σ_ij Σ_k α_k A_k(i, j) = y - (scale · b +
//! offset)`. So each region's value is its contribution to the age in years, and the values sum up
//! to the age less a base that is the same for all images of a version. The sign is kept, because
//! the ReLU would only show what makes a face look older, and an age depends on both; the positive
//! values are the paper's map.

use image::{
    GrayImage, Rgb, RgbImage,
    imageops::{self, FilterType},
};

use super::annotate::png;

/// Opacity of the colour where a region contributes most.
const OPACITY: f32 = 0.65;
/// Colour of regions that make the face look older.
const WARM: [f32; 3] = [255.0, 60.0, 0.0];
/// Colour of regions that make it look younger.
const COOL: [f32; 3] = [0.0, 90.0, 255.0];

/// Contribution of each region of an image to its age.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Explanation {
    /// Rows and columns of the grid of regions.
    pub side: usize,
    /// Years that each region contributes, row by row from the upper left corner.
    pub years: Vec<f32>,
    /// The age less the sum of the contributions, in years.
    pub base: f64,
}

impl Explanation {
    /// Converts contributions to the network's output into years by the label scale.
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

    /// Returns the mean with the explanation of the mirror image, mirrored back; it explains the
    /// mean of both ages.
    pub(super) fn mean(&self, mirrored: &Explanation) -> Explanation {
        let rows = self.years.chunks(self.side);
        let both = rows.zip(mirrored.years.chunks(self.side));
        let years = both.flat_map(|(row, mirrored)| {
            let pairs = row.iter().zip(mirrored.iter().rev());
            pairs.map(|(plain, mirrored)| plain.midpoint(*mirrored))
        });
        Explanation {
            side: self.side,
            years: years.collect(),
            base: self.base.midpoint(mirrored.base),
        }
    }
}

/// Lays an explanation over its image: warm colours where it adds years, cool ones where it
/// subtracts some. The largest contribution has the full colour. Returns a PNG.
pub(super) fn draw(mut canvas: RgbImage, explanation: &Explanation) -> Vec<u8> {
    let (width, height) = canvas.dimensions();
    let largest = explanation
        .years
        .iter()
        .fold(f32::MIN_POSITIVE, |largest, years| largest.max(years.abs()));
    // One map for each sign, so that the interpolation needs no negative pixels.
    let side = explanation.side as u32;
    let strengths = |sign: f32| -> GrayImage {
        let mut years = explanation.years.iter();
        let regions = GrayImage::from_fn(side, side, |_, _| {
            let years = years.next().copied().unwrap_or_default();
            image::Luma([(255.0 * (sign * years / largest).max(0.0)).round() as u8])
        });
        imageops::resize(&regions, width, height, FilterType::Triangle)
    };
    let (older, younger) = (strengths(1.0), strengths(-1.0));
    let strengths = older.pixels().zip(younger.pixels());
    for (pixel, (older, younger)) in canvas.pixels_mut().zip(strengths) {
        let [older, younger] =
            [older, younger].map(|strength| OPACITY * f32::from(strength.0[0]) / 255.0);
        let rest = 1.0 - older - younger;
        *pixel = Rgb(std::array::from_fn(|channel| {
            let own = f32::from(pixel.0[channel]);
            (rest * own + older * WARM[channel] + younger * COOL[channel]).clamp(0.0, 255.0) as u8
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
    fn contributions_sum_up_to_the_age_with_the_base() {
        let explanation = Explanation::new(41.5, vec![0.5, -0.25, 1.0, 0.0], 10.0);
        assert_eq!(explanation.side, 2);
        assert_eq!(explanation.years, [5.0, -2.5, 10.0, 0.0]);
        assert_eq!(explanation.base, 41.5 - 12.5);
    }

    #[test]
    fn mean_with_the_mirror_image_mirrors_it_back() {
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
    fn older_is_warm_and_younger_is_cool_and_the_rest_unchanged() {
        let drawn = pixels(vec![2.0, -2.0, 0.0, 1.0]);
        let at = |x, y| drawn.get_pixel(x, y).0;
        assert_eq!(drawn.dimensions(), (100, 100));
        assert!(at(2, 2)[0] > 180 && at(2, 2)[2] < 60, "{:?}", at(2, 2));
        assert!(at(97, 2)[2] > 180 && at(97, 2)[0] < 60, "{:?}", at(97, 2));
        assert_eq!(at(2, 97), [100, 100, 100]);
        let half = at(97, 97)[0];
        assert!((120..180).contains(&half), "{half}");
        // Unchanged if no region contributes anything.
        assert_eq!(pixels(vec![0.0; 4]).get_pixel(50, 50).0, [100, 100, 100]);
    }
}
