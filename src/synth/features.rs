//! Eyes, brows, nose, mouth and glasses.

use rand::Rng;

use super::{
    draw::{Canvas, Colour, Spot, arc, ellipse, leaf, lerp},
    layout::{Layout, MIDDLE},
    person::{Gender, Person, Race},
};

/// Draws one eye; `side` is -1 (left in the image) or 1.
pub(super) fn eye(person: &Person, layout: &Layout, canvas: &mut Canvas, side: f32) {
    let signs = &person.signs;
    let (centre_x, centre_y) = (MIDDLE + side * layout.eye_dx, layout.eye_y);
    let (rx, ry) = layout.eye;
    let droop = 2.4 * signs.sagging;
    let slant = if person.race == Race::Asian { 1.4 } else { 0.4 };
    let inner = (centre_x - side * rx, centre_y + 1.0);
    let outer = (centre_x + side * rx, centre_y - slant + droop);
    let above = (
        centre_x - side * 0.1 * rx,
        centre_y - 2.0 * ry + droop * 0.6,
    );
    let below = (centre_x + side * 0.15 * rx, centre_y + 1.75 * ry);
    let Some(opening) = leaf(inner, above, outer, below) else {
        return;
    };
    let white = Colour::rgb(0.96, 0.95, 0.93).mix(Colour::rgb(0.86, 0.79, 0.68), signs.weathering);
    canvas.fill(&opening, white, 1.0);
    canvas.clip_to(&opening);
    // The iris is nearly grown at birth, which is why a baby's eyes look so dark.
    let iris = lerp(8.2, 5.4, signs.growth);
    let gaze = (centre_x, centre_y - 0.3);
    canvas.ellipse(gaze, (iris, iris), person.iris.scale(0.55), 1.0);
    canvas.ellipse(gaze, (iris * 0.82, iris * 0.82), person.iris, 1.0);
    canvas.ellipse(
        gaze,
        (iris * 0.45, iris * 0.45),
        Colour::rgb(0.03, 0.03, 0.03),
        1.0,
    );
    canvas.glow(
        (centre_x, centre_y - ry),
        (rx, ry),
        Colour::rgb(0.1, 0.06, 0.05),
        0.5,
    );
    canvas.unclip();
    let glint = (gaze.0 - iris * 0.32, gaze.1 - iris * 0.32);
    canvas.ellipse(
        glint,
        (iris * 0.2, iris * 0.2),
        Colour::rgb(1.0, 1.0, 1.0),
        0.9,
    );
    let lash = person.skin.shadow().mix(
        Colour::rgb(0.08, 0.05, 0.04),
        0.75 - 0.35 * signs.weathering,
    );
    let lash_width = person.by_gender(1.5, 2.1);
    if let Some(lid) = arc([inner, above, outer]) {
        canvas.stroke(&lid, lash_width - 0.5 * signs.sagging, lash, 0.95);
    }
    if person.gender == Gender::Female && signs.growth > 0.7 {
        let tip = (outer.0 + side * 3.2, outer.1 - 2.8);
        if let Some(flick) = arc([outer, (outer.0 + side * 1.4, outer.1), tip]) {
            canvas.stroke(&flick, 1.2, lash, 0.8 * (1.0 - signs.sagging));
        }
    }
    if let Some(lid) = arc([inner, below, outer]) {
        canvas.stroke(&lid, 0.8, person.skin.shadow(), 0.6);
    }
    if person.race != Race::Asian || signs.sagging > 0.3 {
        let lift = |spot: Spot, by: f32| (spot.0, spot.1 - by);
        let fold = [lift(inner, 2.0), lift(above, 4.6), lift(outer, 1.0 - droop)];
        canvas.crease(fold, 1.2, person.skin, 0.4 + 0.4 * signs.sagging);
    }
}

/// Draws one eyebrow, hair by hair over a soft base.
pub(super) fn brow(
    person: &Person,
    layout: &Layout,
    canvas: &mut Canvas,
    side: f32,
    rng: &mut impl Rng,
) {
    let signs = &person.signs;
    let centre_x = MIDDLE + side * layout.eye_dx;
    let half = layout.eye.0 * lerp(0.95, 1.35, signs.growth);
    let thick = lerp(1.1, person.by_gender(3.4, 2.1), signs.growth)
        * person.by_gender(1.0, 1.0 - 0.4 * signs.grey_brows);
    let y = layout.brow_y;
    let arch = lerp(3.0, person.by_gender(3.5, 6.0), signs.growth);
    let from = (centre_x - side * half, y + 2.0);
    let to = (centre_x + side * half * 1.05, y + 2.5 + 2.0 * signs.sagging);
    let peak = (centre_x + side * half * 0.25, y - arch);
    let colour = person.hair.scale(0.85).greyed(signs.grey_brows);
    let opacity = lerp(0.35, 0.8, signs.growth);
    if let Some(path) = leaf(from, (peak.0, peak.1 - thick), to, (peak.0, peak.1 + thick)) {
        canvas.fill(&path, colour, opacity);
    }
    let hairs = lerp(6.0, person.by_gender(26.0, 14.0), signs.growth) as u32;
    for _ in 0..hairs {
        let along = rng.random_range(0.0..1.0);
        let root = bent([from, peak, to], along);
        let root = (root.0, root.1 + rng.random_range(-0.6..0.9) * thick);
        let tip = (
            root.0 + side * rng.random_range(1.5..4.0),
            root.1 - rng.random_range(0.0..2.6),
        );
        let tone =
            person
                .hair
                .scale(0.75)
                .greyed(if rng.random_bool(f64::from(signs.grey_brows)) {
                    1.0
                } else {
                    0.0
                });
        if let Some(path) = arc([root, root, tip]) {
            canvas.stroke(&path, 0.7, tone, opacity * 0.8);
        }
    }
}

/// Returns the point at `along` (0 to 1) of a quadratic curve.
fn bent([from, bend, to]: [Spot; 3], along: f32) -> Spot {
    let first = (lerp(from.0, bend.0, along), lerp(from.1, bend.1, along));
    let second = (lerp(bend.0, to.0, along), lerp(bend.1, to.1, along));
    (
        lerp(first.0, second.0, along),
        lerp(first.1, second.1, along),
    )
}

pub(super) fn nose(person: &Person, layout: &Layout, canvas: &mut Canvas) {
    let signs = &person.signs;
    let (skin, shadow) = (person.skin, person.skin.shadow());
    let (y, half) = (layout.nose_y, layout.nose_half);
    let bridge_top = lerp(layout.eye_y, y, 0.05);
    // A baby hardly has a bridge.
    let bridge = lerp(0.08, 0.3, signs.growth);
    canvas.glow(
        (MIDDLE + half * 0.75, lerp(bridge_top, y, 0.55)),
        (half * 0.7, (y - bridge_top) * 0.7),
        shadow,
        bridge,
    );
    canvas.glow(
        (MIDDLE - half * 0.2, lerp(bridge_top, y, 0.6)),
        (half * 0.5, (y - bridge_top) * 0.6),
        skin.light(),
        bridge * 1.3,
    );
    canvas.glow((MIDDLE, y - 1.0), (half * 1.2, half * 0.8), shadow, 0.25);
    canvas.glow(
        (MIDDLE - half * 0.1, y - half * 0.5),
        (half * 0.5, half * 0.4),
        skin.light(),
        0.7,
    );
    for side in [-1.0, 1.0] {
        let wing = [
            (MIDDLE + side * half * 0.82, y - half * 0.75),
            (MIDDLE + side * half * 1.3, y + half * 0.15),
            (MIDDLE + side * half * 0.62, y + half * 0.22),
        ];
        if let Some(path) = arc(wing) {
            canvas.stroke(&path, 1.2, shadow, lerp(0.45, 0.7, signs.growth));
        }
        let nostril = (MIDDLE + side * half * 0.42, y + half * 0.1);
        canvas.ellipse(nostril, (half * 0.22, half * 0.13), shadow.scale(0.5), 0.85);
    }
    let base = [
        (MIDDLE - half * 0.35, y + half * 0.2),
        (MIDDLE, y + half * 0.42),
        (MIDDLE + half * 0.35, y + half * 0.2),
    ];
    if let Some(path) = arc(base) {
        canvas.stroke(&path, 1.0, shadow, 0.6);
    }
}

pub(super) fn mouth(person: &Person, layout: &Layout, canvas: &mut Canvas) {
    let signs = &person.signs;
    let (y, half) = (
        layout.mouth_y,
        layout.mouth_half * (1.0 + 0.12 * person.smile),
    );
    // With age the corners sink and the lips turn in.
    let corner = y - 3.5 * person.smile + 2.5 * signs.sagging;
    let fullness = lerp(4.2, person.by_gender(5.2, 6.4), signs.growth)
        * if person.race == Race::Black { 1.3 } else { 1.0 }
        * (1.0 - 0.72 * signs.thin_lips);
    let gap = person.open_mouth * lerp(6.0, 8.0, signs.growth);
    let natural = person
        .skin
        .mix(Colour::rgb(0.78, 0.28, 0.3), 0.5 - 0.22 * signs.weathering)
        .scale(0.93);
    let lips = person.lipstick.unwrap_or(natural);
    let (left, right) = ((MIDDLE - half, corner), (MIDDLE + half, corner));
    let sag = 2.0 + 2.5 * person.smile;
    let line_upper = (MIDDLE, y + sag - gap * 0.5);
    let line_lower = (MIDDLE, y + sag + gap * 1.5);
    if let Some(path) = leaf(
        left,
        (MIDDLE, line_upper.1 - fullness * 1.7),
        right,
        line_upper,
    ) {
        canvas.fill(&path, lips.scale(0.88), 1.0);
    }
    if let Some(path) = leaf(
        left,
        line_lower,
        right,
        (MIDDLE, line_lower.1 + fullness * 2.2),
    ) {
        canvas.fill(&path, lips, 1.0);
    }
    if person.open_mouth > 0.0
        && let Some(inside) = leaf(left, line_upper, right, line_lower)
    {
        canvas.fill(&inside, Colour::rgb(0.3, 0.08, 0.08), 1.0);
        // No teeth in the first year.
        if person.age > 0 && person.signs.growth > 0.12 {
            let teeth =
                Colour::rgb(0.97, 0.96, 0.94).mix(Colour::rgb(0.82, 0.74, 0.55), signs.weathering);
            let bite = (MIDDLE, lerp(line_upper.1, line_lower.1, 0.6));
            canvas.clip_to(&inside);
            if let Some(path) = leaf(
                (left.0 + 3.0, left.1),
                line_upper,
                (right.0 - 3.0, right.1),
                bite,
            ) {
                canvas.fill(&path, teeth, 1.0);
            }
            canvas.unclip();
        }
    } else if let Some(path) = arc([left, line_upper, right]) {
        canvas.stroke(&path, 1.3, person.skin.shadow().scale(0.6), 0.85);
    }
    canvas.glow(
        (MIDDLE - 3.0, line_lower.1 * 0.5 + y * 0.5 + fullness * 0.9),
        (half * 0.4, fullness * 0.5),
        person.skin.light(),
        0.5,
    );
    canvas.glow(
        (MIDDLE, line_lower.1 + fullness + 5.0),
        (half * 0.7, 4.0),
        person.skin.shadow(),
        0.45,
    );
    for (corner_x, side) in [(left.0, -1.0), (right.0, 1.0)] {
        canvas.glow(
            (corner_x + side, corner),
            (3.5, 3.5),
            person.skin.shadow(),
            0.5,
        );
    }
}

pub(super) fn glasses(layout: &Layout, canvas: &mut Canvas, frame: Colour) {
    let (rx, ry) = (layout.eye_dx * 0.74, layout.eye.1.max(6.0) * 1.95);
    let y = layout.eye_y + 2.0;
    for side in [-1.0, 1.0] {
        let centre = (MIDDLE + side * layout.eye_dx, y);
        if let Some(lens) = ellipse(centre, (rx, ry)) {
            canvas.fill(&lens, Colour::rgb(0.85, 0.92, 1.0), 0.1);
            canvas.stroke(&lens, 2.0, frame, 0.95);
        }
        let hinge = (centre.0 + side * rx, y - 2.0);
        let ear = (MIDDLE + side * (layout.half_width + 2.0), y - 3.0);
        if let Some(temple) = arc([hinge, hinge, ear]) {
            canvas.stroke(&temple, 2.0, frame, 0.9);
        }
    }
    let reach = layout.eye_dx - rx;
    if let Some(bridge) = arc([
        (MIDDLE - reach, y - 1.0),
        (MIDDLE, y - 5.0),
        (MIDDLE + reach, y - 1.0),
    ]) {
        canvas.stroke(&bridge, 2.0, frame, 0.95);
    }
}
