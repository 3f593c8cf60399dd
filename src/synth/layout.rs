//! Positions on a head.

use tiny_skia::Path;

use super::{
    draw::{SIDE, Spot, lerp, mirrored},
    person::{Person, Race},
};

/// Horizontal position of the middle of the face.
pub(super) const MIDDLE: f32 = SIDE / 2.0;

/// Positions of the features on a head, in points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) top: f32,
    pub(super) chin: f32,
    pub(super) half_width: f32,
    pub(super) jaw: Spot,
    pub(super) eye_y: f32,
    pub(super) eye_dx: f32,
    pub(super) eye: Spot,
    pub(super) brow_y: f32,
    pub(super) nose_y: f32,
    pub(super) nose_half: f32,
    pub(super) mouth_y: f32,
    pub(super) mouth_half: f32,
}

impl Layout {
    /// A baby has a short face under a large forehead; growing up moves the eyes to the middle and
    /// lengthens the rest; growing old lengthens ears and nose and makes the lower face sag.
    pub(super) fn of(person: &Person) -> Self {
        let signs = &person.signs;
        let [wide, long, eyes, nose, mouth] = person.build;
        let top = lerp(40.0, 33.0, signs.growth);
        let adult_height = person.by_gender(145.0, 137.0);
        let height = lerp(106.0, adult_height, signs.growth) * long;
        let chin = top + height + 4.0 * signs.sagging;
        let adult_width = person.by_gender(55.0, 51.5);
        let half_width = lerp(59.0, adult_width, signs.growth) * wide - 1.5 * signs.hollows;
        let adult_jaw = person.by_gender(0.8, 0.7);
        let eye_y = top + height * lerp(0.62, 0.49, signs.growth);
        let nose_y = eye_y + height * lerp(0.145, 0.205, signs.growth) + 4.0 * signs.large_ears;
        let mouth_y = nose_y + height * lerp(0.105, 0.125, signs.growth);
        let narrow = if person.race == Race::Asian {
            0.84
        } else {
            1.0
        };
        Self {
            top,
            chin,
            half_width,
            jaw: (
                half_width * lerp(0.9, adult_jaw + 0.1 * signs.sagging, signs.growth),
                lerp(chin - height * 0.17, chin - height * 0.165, signs.growth),
            ),
            eye_y,
            eye_dx: half_width * lerp(0.47, 0.44, signs.growth),
            eye: (
                lerp(14.0, 10.2, signs.growth) * eyes * (1.0 - 0.1 * signs.sagging),
                lerp(10.8, 5.6, signs.growth) * eyes * narrow * (1.0 - 0.22 * signs.sagging),
            ),
            brow_y: eye_y - height * lerp(0.135, 0.105, signs.growth) + 1.5 * signs.sagging,
            nose_y,
            nose_half: (lerp(6.0, person.by_gender(10.5, 9.0), signs.growth)
                + 3.0 * signs.large_ears)
                * nose,
            mouth_y,
            mouth_half: lerp(12.0, 20.0, signs.growth) * mouth,
        }
    }

    pub(super) fn height(&self) -> f32 {
        self.chin - self.top
    }

    /// Returns the outline of the head.
    pub(super) fn head(&self) -> Option<Path> {
        let (width, height) = (self.half_width, self.height());
        let widest = self.eye_y - 0.02 * height;
        let (jaw_x, jaw_y) = self.jaw;
        // The outline passes the corner of the jaw in this direction.
        let (lean, drop) = (0.42 * (width - jaw_x * 0.6) * 0.5, 0.09 * height);
        mirrored(
            MIDDLE,
            self.top,
            &[
                [
                    (0.62 * width, self.top),
                    (width, self.top + 0.42 * (widest - self.top)),
                    (width, widest),
                ],
                [
                    (width, widest + 0.35 * (jaw_y - widest)),
                    (jaw_x + lean, jaw_y - drop),
                    (jaw_x, jaw_y),
                ],
                [
                    (jaw_x - lean, jaw_y + drop),
                    (jaw_x * 0.48, self.chin),
                    (0.0, self.chin),
                ],
            ],
        )
    }
}
