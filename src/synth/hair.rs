//! Hair on the head, from a baby's down to a bald crown.

use rand::Rng;
use tiny_skia::{Path, PathBuilder};

use super::{
    draw::{Canvas, Colour, Spot, arc, lerp, mirrored},
    layout::{Layout, MIDDLE},
    person::{Hairstyle, Person},
};

/// Recession above which the top of the head is bare.
const BALD: f32 = 0.62;

/// Draws the hair behind neck and shoulders.
pub(super) fn behind(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let colour = person.hair.greyed(person.signs.grey_hair).scale(0.8);
    let width = layout.half_width + rng.random_range(7.0..15.0);
    let end = match person.hairstyle {
        Hairstyle::Long => 240.0,
        Hairstyle::Bob => layout.chin + rng.random_range(-16.0..8.0),
        Hairstyle::Bun => {
            let knot = (MIDDLE + rng.random_range(-6.0..6.0), layout.top - 8.0);
            canvas.ellipse(knot, (21.0, 15.0), colour, 1.0);
            return;
        }
        Hairstyle::Curly => {
            let reach = person.by_gender(layout.eye_y, layout.mouth_y + 8.0);
            curls(person, layout, canvas, reach, rng);
            return;
        }
        Hairstyle::Down | Hairstyle::Buzz | Hairstyle::Short | Hairstyle::SidePart => return,
    };
    let outline = mirrored(
        MIDDLE,
        layout.top - 9.0,
        &[
            [
                (width * 0.7, layout.top - 9.0),
                (width, layout.top + 30.0),
                (width, layout.eye_y),
            ],
            [
                (width + 2.0, lerp(layout.eye_y, end, 0.5)),
                (width + 4.0, end - 15.0),
                (width * 0.8, end),
            ],
            [(width * 0.5, end + 4.0), (width * 0.3, end), (0.0, end)],
        ],
    );
    let Some(path) = outline else {
        return;
    };
    canvas.fill(&path, colour, 1.0);
    canvas.clip_to(&path);
    for _ in 0..60 {
        let x = rng.random_range(-width..width);
        let strand = [
            (MIDDLE + x * 0.7, layout.top),
            (MIDDLE + x * 1.15, layout.eye_y),
            (MIDDLE + x, end),
        ];
        paint_strand(person, canvas, strand, rng);
    }
    canvas.unclip();
}

/// Draws a ring of curls around the head, down to `reach`.
fn curls(person: &Person, layout: &Layout, canvas: &mut Canvas, reach: f32, rng: &mut impl Rng) {
    let centre = (MIDDLE, layout.eye_y - 6.0);
    let (wide, tall) = (layout.half_width + 4.0, centre.1 - layout.top + 3.0);
    let colour = person.hair.greyed(person.signs.grey_hair);
    for _ in 0..150 {
        // A point on the unit circle without trigonometry: a normalised point of a random square.
        let (x, y) = (
            rng.random_range(-1.0..1.0_f32),
            rng.random_range(-1.0..0.9_f32),
        );
        let length = (x * x + y * y).sqrt().max(0.05);
        let spot = (centre.0 + wide * x / length, centre.1 + tall * y / length);
        if spot.1 > reach || (person.signs.recession > BALD && spot.1 < layout.brow_y) {
            continue;
        }
        let radius = rng.random_range(5.0..10.0);
        let tone = strand_colour(person, rng)
            .mix(colour, 0.6)
            .scale(rng.random_range(0.8..1.1));
        canvas.ellipse(spot, (radius, radius), tone, 1.0);
    }
}

/// Draws the hair on top of the head, above the hairline.
pub(super) fn front(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let signs = &person.signs;
    let colour = person.hair.greyed(signs.grey_hair);
    let volume = match person.hairstyle {
        Hairstyle::Down => 1.0,
        Hairstyle::Buzz => 1.5,
        Hairstyle::Short => 5.0,
        Hairstyle::SidePart | Hairstyle::Bob | Hairstyle::Long => 8.0,
        Hairstyle::Curly => 9.0,
        Hairstyle::Bun => 4.0,
    } * (1.0 - 0.35 * signs.recession);
    let opacity = if person.hairstyle == Hairstyle::Down {
        0.2 + 0.25 * f32::from(person.age)
    } else if person.hairstyle == Hairstyle::Buzz {
        0.72
    } else {
        1.0
    };
    if signs.recession > BALD {
        fringe_of_the_bald(person, layout, canvas, rng);
        return;
    }
    let Some(path) = cap(person, layout, volume) else {
        return;
    };
    canvas.fill(&path, colour, opacity);
    canvas.clip_to(&path);
    let is_parted = matches!(
        person.hairstyle,
        Hairstyle::SidePart | Hairstyle::Bob | Hairstyle::Long
    );
    let part = if is_parted {
        rng.random_range(-0.5..0.5) * layout.half_width
    } else {
        0.0
    };
    let root = (MIDDLE + part, layout.top - volume);
    let strands = (110.0 * opacity) as u32;
    for _ in 0..strands {
        let x = rng.random_range(-1.15..1.15) * layout.half_width;
        let end = (
            MIDDLE + x,
            rng.random_range(layout.top..layout.eye_y + 20.0),
        );
        let bend = (MIDDLE + x, layout.top + rng.random_range(-6.0..10.0));
        let start = (root.0 + rng.random_range(-4.0..4.0), root.1);
        paint_strand(person, canvas, [start, bend, end], rng);
    }
    if person.hairstyle == Hairstyle::Curly {
        for _ in 0..110 {
            let spot = (
                MIDDLE + rng.random_range(-1.15..1.15) * layout.half_width,
                rng.random_range(layout.top - volume..layout.eye_y),
            );
            let bend = (spot.0, spot.1 - 6.0);
            if let Some(curl) = arc([
                (spot.0 - 4.0, spot.1 + 1.0),
                bend,
                (spot.0 + 4.0, spot.1 + 1.0),
            ]) {
                canvas.stroke(&curl, 1.8, strand_colour(person, rng), 0.6);
            }
        }
    }
    let shine = (MIDDLE - 12.0, layout.top + 4.0);
    canvas.glow(
        shine,
        (30.0, 10.0),
        colour.light(),
        0.3 * (1.0 - signs.weathering),
    );
    canvas.unclip();
}

/// Returns the outline of the hair on top: around the skull, back along the hairline.
fn cap(person: &Person, layout: &Layout, volume: f32) -> Option<Path> {
    let (width, height) = (layout.half_width, layout.height());
    let lift = person.signs.recession / BALD;
    let fringe = person.fringe && lift < 0.3 && person.hairstyle != Hairstyle::Down;
    let line = if person.hairstyle == Hairstyle::Down {
        layout.top + 0.1 * height
    } else if fringe {
        layout.brow_y - 5.0
    } else {
        layout.top + height * lerp(0.155, 0.03, lift)
    };
    // Where the hair ends beside the face.
    let down = match person.hairstyle {
        Hairstyle::Long | Hairstyle::Bob => layout.mouth_y,
        Hairstyle::Down => layout.brow_y,
        Hairstyle::Buzz
        | Hairstyle::Short
        | Hairstyle::SidePart
        | Hairstyle::Curly
        | Hairstyle::Bun => layout.eye_y + 6.0,
    };
    let outer = width + volume * 0.7;
    let inner = width * if fringe { 0.93 } else { 0.87 };
    // The corners of the forehead recede first.
    let corner = (
        width * lerp(0.66, 0.6, lift),
        lerp(line + 0.04 * height, layout.top + 0.02 * height, lift),
    );
    let corner = if fringe {
        (corner.0, line + 2.0)
    } else {
        corner
    };
    mirrored(
        MIDDLE,
        layout.top - volume,
        &[
            [
                (outer * 0.66, layout.top - volume),
                (outer, layout.top + 0.16 * height),
                (outer, layout.eye_y - 0.08 * height),
            ],
            [
                (outer, lerp(layout.eye_y, down, 0.5)),
                (outer, down - 4.0),
                (width * 0.99, down),
            ],
            [
                (inner, down - 6.0),
                (inner * 1.02, layout.brow_y),
                (inner * 0.95, layout.brow_y - 0.05 * height),
            ],
            [
                (inner * 0.9, corner.1 + 8.0),
                (corner.0 + 4.0, corner.1 + 1.0),
                corner,
            ],
            [
                (corner.0 * 0.6, corner.1 - 2.0),
                (width * 0.25, line),
                (0.0, line),
            ],
        ],
    )
}

/// Draws the hair at the sides of a bald head, and a few hairs combed over it.
fn fringe_of_the_bald(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let colour = person.hair.greyed(person.signs.grey_hair);
    let (width, height) = (layout.half_width, layout.height());
    for side in [-1.0, 1.0] {
        let x = |share: f32| MIDDLE + side * width * share;
        let mut builder = PathBuilder::new();
        builder.move_to(x(0.9), layout.brow_y - 0.14 * height);
        builder.quad_to(
            x(1.16),
            layout.brow_y - 0.1 * height,
            x(1.12),
            layout.eye_y + 10.0,
        );
        builder.quad_to(x(1.0), layout.eye_y + 12.0, x(0.95), layout.eye_y + 2.0);
        builder.quad_to(
            x(0.96),
            layout.brow_y,
            x(0.9),
            layout.brow_y - 0.14 * height,
        );
        builder.close();
        let Some(path) = builder.finish() else {
            continue;
        };
        canvas.fill(&path, colour, 0.95);
        canvas.clip_to(&path);
        for _ in 0..24 {
            let from = (x(rng.random_range(0.9..1.1)), layout.brow_y - 0.14 * height);
            let to = (x(rng.random_range(0.95..1.15)), layout.eye_y + 12.0);
            paint_strand(person, canvas, [from, (x(1.1), layout.brow_y), to], rng);
        }
        canvas.unclip();
    }
    canvas.glow(
        (MIDDLE - 10.0, layout.top + 14.0),
        (24.0, 11.0),
        person.skin.light(),
        0.6,
    );
    for _ in 0..(40.0 * (1.0 - person.signs.recession)) as u32 {
        let from = (
            MIDDLE + rng.random_range(-0.7..0.7) * width,
            layout.top + 12.0,
        );
        let to = (
            from.0 + rng.random_range(-9.0..9.0),
            layout.top + rng.random_range(-2.0..5.0),
        );
        if let Some(path) = arc([from, (from.0, layout.top), to]) {
            canvas.stroke(&path, 0.8, colour, 0.6);
        }
    }
}

fn paint_strand(person: &Person, canvas: &mut Canvas, strand: [Spot; 3], rng: &mut impl Rng) {
    if let Some(path) = arc(strand) {
        let width = rng.random_range(0.6..1.6);
        let colour = strand_colour(person, rng);
        canvas.stroke(&path, width, colour, 0.55);
    }
}

/// Returns the colour of a single hair, which is either grey or not; the share decides how many
/// are.
pub(super) fn strand_colour(person: &Person, rng: &mut impl Rng) -> Colour {
    let share = person.signs.grey_hair;
    let own = if rng.random_bool(f64::from(share)) {
        1.0
    } else {
        share * 0.5
    };
    person.hair.greyed(own).scale(rng.random_range(0.7..1.3))
}
