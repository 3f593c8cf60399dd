//! Composes one image: background, body, head and hair.

use rand::Rng;

use super::{
    ageing, beard,
    draw::{Canvas, Colour, SIDE, ellipse, everything, lerp, mirrored},
    features, hair,
    layout::{Layout, MIDDLE},
    person::{Hairstyle, Person},
};

/// Draws everything but light and camera.
pub(super) fn compose(person: &Person, canvas: &mut Canvas, rng: &mut impl Rng) {
    background(canvas, rng);
    let shift = (rng.random_range(-5.0..5.0), rng.random_range(-8.0..2.0));
    canvas.pose(
        rng.random_range(-7.0..7.0),
        rng.random_range(1.04..1.2),
        shift,
    );
    let layout = Layout::of(person);
    hair::behind(person, &layout, canvas, rng);
    body(person, &layout, canvas, rng);
    ears(person, &layout, canvas);
    let Some(head) = layout.head() else {
        return;
    };
    canvas.fill(&head, person.skin, 1.0);
    canvas.clip_to(&head);
    shading(person, &layout, canvas);
    ageing::texture(person, &layout, canvas, rng);
    ageing::folds(person, &layout, canvas, rng);
    beard::chin(person, &layout, canvas, rng);
    canvas.unclip();
    features::nose(person, &layout, canvas);
    features::mouth(person, &layout, canvas);
    for side in [-1.0, 1.0] {
        features::eye(person, &layout, canvas, side);
        ageing::around_eye(person, &layout, canvas, side);
        features::brow(person, &layout, canvas, side, rng);
    }
    beard::moustache(person, &layout, canvas, rng);
    hair::front(person, &layout, canvas, rng);
    if let Some(frame) = person.glasses {
        features::glasses(&layout, canvas, frame);
    }
}

fn background(canvas: &mut Canvas, rng: &mut impl Rng) {
    let mut tint = || {
        let grey = rng.random_range(0.3..0.65);
        let mut near = || (grey + rng.random_range(-0.1..0.1_f32)).clamp(0.03, 0.97);
        Colour::rgb(near(), near(), near())
    };
    let (first, second, third) = (tint(), tint(), tint());
    let Some(canvas_area) = everything() else {
        return;
    };
    let end = (rng.random_range(0.0..SIDE), SIDE);
    canvas.fill_between(
        &canvas_area,
        ((0.0, 0.0), first),
        (end, first.mix(second, 0.6)),
    );
    // Out-of-focus things: lamps, leaves, furniture.
    for _ in 0..rng.random_range(0..9) {
        let centre = (rng.random_range(0.0..SIDE), rng.random_range(0.0..SIDE));
        let radii = (rng.random_range(10.0..60.0), rng.random_range(10.0..60.0));
        let colour = second.mix(third, rng.random_range(0.0..1.0));
        canvas.glow(centre, radii, colour, rng.random_range(0.2..0.8));
    }
}

fn body(person: &Person, layout: &Layout, canvas: &mut Canvas, rng: &mut impl Rng) {
    let signs = &person.signs;
    let neck = layout.half_width * lerp(0.5, person.by_gender(0.66, 0.5), signs.growth);
    let skin = person.skin.mix(person.skin.shadow(), 0.22);
    let outline = mirrored(
        MIDDLE,
        layout.chin - 40.0,
        &[
            [
                (neck, layout.chin - 40.0),
                (neck, layout.chin - 20.0),
                (neck, layout.chin),
            ],
            [(neck, 260.0), (neck, 280.0), (0.0, 280.0)],
        ],
    );
    if let Some(path) = outline {
        canvas.fill(&path, skin, 1.0);
    }
    canvas.glow(
        (MIDDLE, layout.chin + 2.0),
        (neck * 1.25, 17.0),
        skin.shadow(),
        0.75,
    );
    for line in 0..3 {
        let y = layout.chin + 8.0 + 7.0 * line as f32;
        let strength = 0.5 * signs.sagging * signs.weathering;
        let bend = [
            (MIDDLE - neck, y - 3.0),
            (MIDDLE, y + 4.0),
            (MIDDLE + neck, y - 3.0),
        ];
        canvas.crease(bend, 1.3, skin, strength);
    }
    // The young dress in bright colours, the old in quiet ones.
    let bright = Colour::rgb(
        rng.random_range(0.1..0.95),
        rng.random_range(0.1..0.95),
        rng.random_range(0.1..0.95),
    );
    let quiet = Colour::rgb(0.34, 0.34, 0.37).scale(rng.random_range(0.6..1.3));
    let cloth = bright.mix(quiet, 0.9 * signs.weathering);
    let shoulder = layout.chin + lerp(10.0, 18.0, signs.growth);
    let width = lerp(72.0, person.by_gender(112.0, 96.0), signs.growth);
    let collar = rng.random_range(0.0..10.0);
    let clothes = mirrored(
        MIDDLE,
        shoulder + 5.0 + collar,
        &[
            [
                (neck * 0.6, shoulder + 4.0 + collar),
                (neck, shoulder),
                (neck * 1.05, shoulder - 6.0),
            ],
            [
                (neck * 1.5, shoulder + 2.0),
                (width, shoulder + 4.0),
                (width, shoulder + 50.0),
            ],
            [(width, 300.0), (50.0, 300.0), (0.0, 300.0)],
        ],
    );
    if let Some(path) = clothes {
        canvas.fill_between(
            &path,
            ((MIDDLE, shoulder - 6.0), cloth),
            ((MIDDLE + 30.0, 215.0), cloth.scale(0.6)),
        );
    }
}

fn ears(person: &Person, layout: &Layout, canvas: &mut Canvas) {
    if matches!(person.hairstyle, Hairstyle::Long | Hairstyle::Bob) {
        return;
    }
    let signs = &person.signs;
    let tall = lerp(13.0, 15.0, signs.growth) + 5.0 * signs.large_ears;
    let y = lerp(layout.eye_y, layout.nose_y, 0.5) + 2.0 * signs.large_ears;
    for side in [-1.0, 1.0] {
        let x = MIDDLE + side * (layout.half_width + 1.0);
        canvas.ellipse(
            (x, y),
            (6.5 + signs.large_ears, tall),
            person.skin.mix(person.skin.shadow(), 0.12),
            1.0,
        );
        canvas.ellipse(
            (x + side, y - 1.0),
            (3.0, tall * 0.6),
            person.skin.shadow(),
            0.4,
        );
        if person.earrings {
            canvas.ellipse(
                (x + side * 1.5, y + tall + 1.0),
                (2.2, 2.6),
                Colour::rgb(0.93, 0.8, 0.4),
                1.0,
            );
        }
    }
}

/// Draws the roundness of the head: darker sides, lit forehead and cheeks, and with age hollow
/// temples and cheeks.
fn shading(person: &Person, layout: &Layout, canvas: &mut Canvas) {
    let signs = &person.signs;
    let (skin, shadow) = (person.skin, person.skin.shadow());
    let height = layout.height();
    for side in [-1.0, 1.0] {
        let edge = MIDDLE + side * layout.half_width * 1.1;
        canvas.glow(
            (edge, layout.eye_y + 0.15 * height),
            (24.0, 0.6 * height),
            shadow,
            0.42,
        );
        // The rosy cheek of a child, full and low.
        let cheek = (
            MIDDLE + side * layout.half_width * 0.56,
            lerp(layout.nose_y, layout.mouth_y, 0.3),
        );
        let rosy = Colour::rgb(0.93, 0.38, 0.36).mix(skin, 0.25);
        canvas.glow(
            cheek,
            (
                lerp(20.0, 28.0, signs.rosiness),
                lerp(16.0, 24.0, signs.rosiness),
            ),
            rosy,
            0.08 + 0.55 * signs.rosiness,
        );
        canvas.glow(
            (cheek.0, cheek.1 - 7.0),
            (17.0, 12.0),
            skin.light(),
            0.4 * (1.0 - signs.hollows),
        );
        let hollow = (
            MIDDLE + side * layout.half_width * 0.7,
            layout.mouth_y - 4.0,
        );
        canvas.glow(hollow, (15.0, 24.0), shadow, 0.6 * signs.hollows);
        let temple = (
            MIDDLE + side * layout.half_width * 0.92,
            layout.brow_y - 4.0,
        );
        canvas.glow(temple, (13.0, 20.0), shadow, 0.5 * signs.hollows);
        let jowl = (MIDDLE + side * layout.jaw.0 * 0.62, layout.chin - 8.0);
        canvas.glow(jowl, (17.0, 11.0), shadow, 0.6 * signs.sagging);
        let socket = (MIDDLE + side * layout.eye_dx, layout.eye_y - 2.0);
        canvas.glow(socket, (17.0, 13.0), shadow, 0.15 + 0.35 * signs.sagging);
    }
    let forehead = (MIDDLE, lerp(layout.top, layout.brow_y, 0.55));
    canvas.glow(
        forehead,
        (36.0, 24.0),
        skin.light(),
        0.5 - 0.25 * signs.weathering,
    );
    canvas.glow((MIDDLE, layout.chin + 3.0), (40.0, 15.0), shadow, 0.4);
    if let Some(dimple) = ellipse((MIDDLE, layout.chin - 9.0), (7.0, 4.0)) {
        canvas.fill(&dimple, skin.light(), 0.2);
    }
}
