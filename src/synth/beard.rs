//! Beards and moustaches.

use rand::Rng;

use super::{
    draw::{Canvas, Spot, arc, leaf, lerp, mirrored},
    hair::strand_colour,
    layout::{Layout, MIDDLE},
    person::{Beard, Person},
};

/// Draws stubble or a full beard; the caller clips to the head.
pub(super) fn chin(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let opacity = match person.beard {
        Beard::None | Beard::Moustache => return,
        Beard::Stubble => 0.25,
        Beard::Full => 0.92,
    };
    let (width, chin) = (layout.half_width + 3.0, layout.chin + 4.0);
    let cheek = lerp(layout.nose_y, layout.mouth_y, 0.75);
    let mouth = (layout.mouth_half * 1.05, layout.mouth_y);
    let outline = mirrored(
        MIDDLE,
        layout.mouth_y + 9.0,
        &[
            [
                (mouth.0 * 0.5, mouth.1 + 9.0),
                (mouth.0, mouth.1 + 7.0),
                (mouth.0 + 1.0, mouth.1),
            ],
            [
                (mouth.0 + 8.0, cheek + 4.0),
                (width * 0.8, cheek),
                (width, layout.eye_y + 6.0),
            ],
            [(width + 9.0, cheek), (width, chin), (width * 0.5, chin)],
            [(width * 0.3, chin), (width * 0.1, chin), (0.0, chin)],
        ],
    );
    let Some(path) = outline else {
        return;
    };
    canvas.fill(&path, person.hair.greyed(person.signs.grey_hair), opacity);
    let hairs = if person.beard == Beard::Full { 160 } else { 60 };
    for _ in 0..hairs {
        let x = rng.random_range(-1.0..1.0);
        let y = rng.random_range(0.0..1.0_f32);
        let from = (MIDDLE + x * width, lerp(cheek + 5.0, chin, y));
        let spot_beside_mouth = from.1 < layout.mouth_y + 8.0 && x.abs() * width < mouth.0 + 3.0;
        if spot_beside_mouth {
            continue;
        }
        let to = (from.0 + x * 2.0, from.1 + 3.0 + 3.0 * opacity);
        if let Some(hair) = arc([from, from, to]) {
            canvas.stroke(&hair, 0.8, strand_colour(person, rng), 0.3 + 0.5 * opacity);
        }
    }
}

/// Draws the hair on the upper lip, over the mouth.
pub(super) fn moustache(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    if !matches!(person.beard, Beard::Moustache | Beard::Full) {
        return;
    }
    let colour = person.hair.greyed(person.signs.grey_hair * 0.9);
    let top = lerp(layout.nose_y, layout.mouth_y, 0.32);
    let base = layout.mouth_y - 1.0;
    for side in [-1.0, 1.0] {
        let tip = (
            MIDDLE + side * layout.mouth_half * 1.08,
            layout.mouth_y + 3.0,
        );
        let half = leaf(
            (MIDDLE, base),
            (MIDDLE + side * layout.mouth_half * 0.35, top - 3.0),
            tip,
            (MIDDLE + side * layout.mouth_half * 0.5, base + 0.5),
        );
        let Some(path) = half else {
            continue;
        };
        canvas.fill(&path, colour, 0.92);
        for _ in 0..14 {
            let along = rng.random_range(0.0..0.9);
            let from: Spot = (
                lerp(MIDDLE, tip.0, along),
                lerp(top + 2.0, tip.1 - 3.0, along),
            );
            let to = (from.0 + side * 3.0, from.1 + 3.5);
            if let Some(hair) = arc([from, from, to]) {
                canvas.stroke(&hair, 0.7, strand_colour(person, rng), 0.7);
            }
        }
    }
}
