//! Ageing skin: uneven tone, spots, lines and folds.

use rand::Rng;

use super::{
    draw::{Canvas, Colour, Spot, arc, lerp, normal, ramp},
    layout::{Layout, MIDDLE},
    person::Person,
};

/// Draws blotches, fine lines, freckles, a teenager's pimples and the spots of old age, over the
/// whole head.
pub(super) fn texture(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let signs = &person.signs;
    let (skin, shadow) = (person.skin, person.skin.shadow());
    for _ in 0..(110.0 * signs.weathering) as u32 {
        let centre = anywhere(layout, rng);
        let radii = (rng.random_range(1.5..6.0), rng.random_range(1.0..4.5));
        let tone = if rng.random_bool(0.6) {
            shadow
        } else {
            skin.light()
        };
        canvas.ellipse(
            centre,
            radii,
            tone,
            rng.random_range(0.03..0.17) * signs.weathering,
        );
    }
    // Fine lines, which make old skin look like crumpled paper.
    let fine = ramp(signs.weathering, 0.2, 1.0);
    for _ in 0..(150.0 * fine) as u32 {
        let from = anywhere(layout, rng);
        let (across, down) = (rng.random_range(3.0..11.0), rng.random_range(-4.0..4.0));
        let bend = (from.0 + across * 0.5, from.1 + down);
        let to = (from.0 + across, from.1 + down * rng.random_range(-0.5..1.5));
        let strength = rng.random_range(0.1..0.5) * fine;
        canvas.crease([from, bend, to], 0.9, skin, strength);
    }
    let brown = Colour::rgb(0.45, 0.27, 0.15).mix(shadow, 0.5);
    for _ in 0..(22.0 * signs.spots) as u32 {
        let centre = anywhere(layout, rng);
        let radius = rng.random_range(0.9..3.2);
        canvas.ellipse(
            centre,
            (radius, radius * 0.8),
            brown,
            rng.random_range(0.25..0.6),
        );
    }
    if person.freckles {
        for _ in 0..45 {
            let centre = (
                MIDDLE + 18.0 * normal(rng),
                layout.nose_y - 10.0 + 6.0 * normal(rng),
            );
            canvas.ellipse(centre, (0.8, 0.7), brown, 0.35);
        }
    }
    if (12..20).contains(&person.age) {
        for _ in 0..rng.random_range(0..12) {
            let centre = anywhere(layout, rng);
            canvas.glow(centre, (2.4, 2.4), Colour::rgb(0.8, 0.25, 0.22), 0.75);
        }
    }
}

/// Draws the lines of the forehead, between the brows, beside and below the mouth, and on the
/// cheeks.
pub(super) fn folds(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    forehead(person, layout, canvas, rng);
    let signs = &person.signs;
    let (skin, fold) = (person.skin, signs.folds);
    let expression = 0.18 * person.smile.max(0.0) * signs.growth;
    for side in [-1.0, 1.0] {
        let from = (MIDDLE + side * layout.nose_half * 1.12, layout.nose_y - 3.0);
        let reach = lerp(0.5, 1.0, fold);
        let end = (
            MIDDLE + side * (layout.mouth_half + 6.0),
            layout.mouth_y + 5.0 * signs.sagging + 2.0,
        );
        let to = (lerp(from.0, end.0, reach), lerp(from.1, end.1, reach));
        let bend = (to.0 + side * 1.5, lerp(from.1, to.1, 0.35));
        let strength = (0.85 * fold + expression).min(0.9);
        canvas.crease([from, bend, to], 1.1 + 1.9 * fold, skin, strength);
        let corner = (
            MIDDLE + side * (layout.mouth_half + 2.0),
            layout.mouth_y + 3.0,
        );
        let below = (corner.0 + side * 3.0, lerp(corner.1, layout.chin, 0.7));
        let sunk = (corner.0 + side * 4.0, lerp(corner.1, below.1, 0.5));
        canvas.crease(
            [corner, sunk, below],
            1.0 + signs.sagging,
            skin,
            0.65 * signs.sagging,
        );
        let glabella = ramp(signs.forehead_lines, 0.3, 1.0);
        let between = MIDDLE + side * 4.0;
        let frown = [
            (between, layout.brow_y - 3.0),
            (between + side * 1.6, layout.brow_y + 3.0),
            (between + side * 0.6, layout.brow_y + 9.0),
        ];
        if let Some(path) = arc(frown) {
            canvas.stroke(&path, 1.2, skin.shadow(), 0.65 * glabella);
        }
        cheek_lines(person, layout, canvas, side, rng);
    }
    // Fine upright lines on the upper lip come last.
    let pleats = ramp(signs.thin_lips, 0.5, 1.0);
    for index in -3..=3 {
        let x = MIDDLE + index as f32 * 4.2 + rng.random_range(-1.0..1.0);
        let line = [
            (x, layout.mouth_y - 8.0),
            (x + 0.4, layout.mouth_y - 5.0),
            (x, layout.mouth_y - 2.0),
        ];
        if let Some(path) = arc(line) {
            canvas.stroke(&path, 0.8, skin.shadow(), 0.6 * pleats);
        }
    }
}

fn forehead(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let depth = person.signs.forehead_lines;
    let lines = (depth * 6.0).ceil() as u32;
    let lowest = layout.brow_y - 8.0;
    let spacing = (lowest - lerp(layout.top, layout.brow_y, 0.3)) / 5.0;
    for line in 0..lines {
        let y = lowest - spacing * line as f32 + rng.random_range(-1.0..1.0);
        let half = layout.half_width * rng.random_range(0.35..0.62) * lerp(0.8, 1.1, depth);
        let middle = MIDDLE + rng.random_range(-6.0..6.0);
        let dip = rng.random_range(-3.0..2.5);
        let strength = (0.15 + 0.72 * depth) * rng.random_range(0.75..1.1);
        // Two arcs that meet over the nose, as the muscle pulls.
        for side in [-1.0, 1.0] {
            let crease = [
                (middle, y + dip * 0.5),
                (middle + side * half * 0.5, y - 3.0 - dip),
                (middle + side * half, y + rng.random_range(0.0..3.0)),
            ];
            canvas.crease(crease, 1.0 + 1.1 * depth, person.skin, strength);
        }
    }
}

fn cheek_lines(
    person: &Person,
    layout: &Layout,
    canvas: &mut Canvas,
    side: f32,
    rng: &mut impl Rng,
) {
    let depth = ramp(
        person.signs.folds * 0.5 + person.signs.sagging * 0.5,
        0.35,
        1.0,
    );
    for line in 0..(7.0 * depth) as u32 {
        let x = MIDDLE + side * layout.half_width * (0.62 + 0.045 * line as f32);
        let top = layout.nose_y - 4.0 + rng.random_range(-6.0..6.0);
        let bottom = top + rng.random_range(10.0..24.0);
        let crease = [
            (x - side * 3.0, top),
            (x + side * 3.0, lerp(top, bottom, 0.5)),
            (x - side * 2.0, bottom),
        ];
        canvas.crease(crease, 1.1, person.skin, 0.65 * depth);
    }
}

/// Draws crow's feet and bags, over the eye.
pub(super) fn around_eye(person: &Person, layout: &Layout, canvas: &mut Canvas, side: f32) {
    let signs = &person.signs;
    let (skin, shadow) = (person.skin, person.skin.shadow());
    let (rx, ry) = layout.eye;
    let centre = (MIDDLE + side * layout.eye_dx, layout.eye_y);
    let corner = (centre.0 + side * (rx + 2.5), centre.1);
    let feet = (signs.crows_feet * 5.0).ceil() as u32;
    for foot in 0..feet {
        let angle = (foot as f32 - (feet as f32 - 1.0) / 2.0) * 0.9;
        let length = lerp(5.0, 12.0, signs.crows_feet);
        let from = (corner.0, corner.1 + angle * 2.0);
        let to = (corner.0 + side * length, corner.1 + angle * 5.5);
        let bend = (lerp(from.0, to.0, 0.5), lerp(from.1, to.1, 0.5) - 0.8);
        canvas.crease([from, bend, to], 1.0, skin, 0.2 + 0.65 * signs.crows_feet);
    }
    let bags = signs.eye_bags;
    canvas.glow(
        (centre.0, centre.1 + ry * 1.9),
        (rx * 1.1, 4.0 + 3.0 * bags),
        shadow.mix(Colour::rgb(0.4, 0.25, 0.4), 0.25),
        0.6 * bags,
    );
    for fold in 0..(bags * 3.0).ceil() as u32 {
        let down = ry * 1.2 + 3.2 + 3.4 * fold as f32;
        let wide = rx * (0.95 - 0.12 * fold as f32);
        let crease = [
            (centre.0 - side * wide, centre.1 + down * 0.75),
            (centre.0 - side * rx * 0.1, centre.1 + down * 1.45),
            (centre.0 + side * wide, centre.1 + down * 0.8),
        ];
        canvas.crease(crease, 1.1 + 0.6 * bags, skin, 0.75 * bags);
    }
}

/// Returns a random position on the head, which the clip restricts to the outline.
fn anywhere(layout: &Layout, rng: &mut impl Rng) -> Spot {
    let x = MIDDLE + layout.half_width * rng.random_range(-1.0..1.0);
    (x, rng.random_range(layout.top..layout.chin))
}
