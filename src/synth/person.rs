//! Persons: the labels, and every trait that the drawing depends on, sampled for one age.
//!
//! The traits carry the correlation between age and looks, and its noise. Each person first looks a
//! little older or younger than they are, then each sign of age (grey hair, forehead lines, …) is a
//! few years ahead or behind independently. A model has to weigh many signs against each other, as
//! with real images.

use rand::Rng;

use super::draw::{Colour, lerp, normal, ramp};

/// The second label in a UTKFace name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gender {
    /// Code 0.
    Male,
    /// Code 1.
    Female,
}

/// The third label in a UTKFace name; here it only selects the range of skin and hair colours and
/// of eye shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Race {
    /// Code 0.
    White,
    /// Code 1.
    Black,
    /// Code 2.
    Asian,
    /// Code 3.
    Indian,
    /// Code 4: any other or mixed.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hairstyle {
    /// The first hair of a baby.
    Down,
    Buzz,
    Short,
    SidePart,
    Curly,
    Bob,
    Long,
    Bun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beard {
    None,
    Stubble,
    Moustache,
    Full,
}

/// The signs of growing up and growing old, each 0 (none) to 1 (full).
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs {
    /// 0 for a newborn's proportions, 1 for an adult's.
    pub(super) growth: f32,
    pub(super) grey_hair: f32,
    pub(super) grey_brows: f32,
    pub(super) recession: f32,
    pub(super) forehead_lines: f32,
    pub(super) crows_feet: f32,
    pub(super) folds: f32,
    pub(super) eye_bags: f32,
    pub(super) spots: f32,
    pub(super) sagging: f32,
    pub(super) thin_lips: f32,
    pub(super) large_ears: f32,
    /// Sunken cheeks and temples.
    pub(super) hollows: f32,
    /// Uneven, sallow skin.
    pub(super) weathering: f32,
    /// Rosy cheeks, the only sign that fades.
    pub(super) rosiness: f32,
}

/// One person at one age, ready to be drawn.
#[derive(Clone, Debug)]
pub struct Person {
    pub(super) age: u8,
    pub(super) gender: Gender,
    pub(super) race: Race,
    pub(super) signs: Signs,
    pub(super) skin: Colour,
    pub(super) hair: Colour,
    pub(super) iris: Colour,
    pub(super) lipstick: Option<Colour>,
    pub(super) hairstyle: Hairstyle,
    pub(super) fringe: bool,
    pub(super) beard: Beard,
    pub(super) glasses: Option<Colour>,
    pub(super) earrings: bool,
    pub(super) freckles: bool,
    /// -0.1 (a hint of a frown) to 1 (a broad smile).
    pub(super) smile: f32,
    /// 0 (closed) to 1.
    pub(super) open_mouth: f32,
    /// Multipliers near 1: width and length of the face, size of the eyes, the nose and the mouth.
    pub(super) build: [f32; 5],
}

impl Person {
    /// Samples a person of `age` years.
    pub fn sample(age: u8, rng: &mut impl Rng) -> Self {
        let years = f32::from(age);
        let gender = pick(rng, &[(Gender::Male, 1.0), (Gender::Female, 1.0)]);
        let race = pick(
            rng,
            &[
                (Race::White, 0.36),
                (Race::Black, 0.2),
                (Race::Asian, 0.17),
                (Race::Indian, 0.17),
                (Race::Other, 0.1),
            ],
        );
        let deviation = 0.3 + years.min(60.0) * 0.04;
        let looks = (years + normal(rng) * deviation).max(0.2);
        let signs = sample_signs(looks, gender, rng);
        let adult = signs.growth > 0.88;
        let hairstyle = sample_hairstyle(years, gender, rng);
        let beard = if gender == Gender::Male && years >= 19.0 {
            pick(
                rng,
                &[
                    (Beard::None, 0.56),
                    (Beard::Stubble, 0.18),
                    (Beard::Moustache, 0.1),
                    (Beard::Full, 0.16),
                ],
            )
        } else {
            Beard::None
        };
        let lipstick = (adult && gender == Gender::Female && rng.random_bool(0.35)).then(|| {
            Colour::rgb(
                rng.random_range(0.62..0.82),
                rng.random_range(0.1..0.3),
                rng.random_range(0.2..0.4),
            )
        });
        let glasses_share = f64::from(0.03 + 0.4 * ramp(years, 5.0, 75.0));
        let glasses = rng
            .random_bool(if years < 4.0 { 0.0 } else { glasses_share })
            .then(|| sample_frame(rng));
        let mut near_one = |spread: f32| 1.0 + normal(rng).clamp(-2.2, 2.2) * spread;
        let build = [
            near_one(0.035),
            near_one(0.02),
            near_one(0.06),
            near_one(0.09),
            near_one(0.07),
        ];
        Self {
            age,
            gender,
            race,
            signs,
            skin: sample_skin(race, &signs, rng),
            hair: sample_hair(race, years, rng),
            iris: sample_iris(race, rng),
            lipstick,
            hairstyle,
            fringe: rng.random_bool(if gender == Gender::Female { 0.35 } else { 0.2 }),
            beard,
            glasses,
            earrings: gender == Gender::Female && years > 6.0 && rng.random_bool(0.3),
            freckles: race == Race::White && rng.random_bool(0.15),
            smile: rng.random_range(-0.1..1.0),
            open_mouth: if rng.random_bool(0.3) {
                rng.random_range(0.4..1.0)
            } else {
                0.0
            },
            build,
        }
    }

    /// Returns the value for the person's gender.
    pub(super) fn by_gender(&self, male: f32, female: f32) -> f32 {
        match self.gender {
            Gender::Male => male,
            Gender::Female => female,
        }
    }
}

fn sample_signs(looks: f32, gender: Gender, rng: &mut impl Rng) -> Signs {
    // Growth follows the calendar closely; the signs of old age do not.
    let growth = ((1.0 - (-looks / 10.0).exp()) / (1.0 - (-22.0_f32 / 10.0).exp())).min(1.0);
    let onset_of_grey = 38.0 + 5.0 * normal(rng).clamp(-2.0, 2.0);
    let balding = match gender {
        Gender::Male => rng.random_range(0.0..1.25_f32).min(1.0),
        Gender::Female => rng.random_range(0.0..0.25),
    };
    let dyed = looks > 40.0 && rng.random_bool(if gender == Gender::Female { 0.1 } else { 0.02 });
    let mut sign = |from: f32, to: f32| ramp(looks + 3.0 * normal(rng), from, to);
    let grey = sign(onset_of_grey, onset_of_grey + 30.0);
    Signs {
        growth,
        grey_hair: if dyed { grey * 0.1 } else { grey },
        grey_brows: sign(50.0, 88.0),
        recession: balding * sign(24.0, 68.0),
        forehead_lines: sign(24.0, 80.0),
        crows_feet: sign(26.0, 76.0),
        folds: sign(22.0, 76.0),
        eye_bags: sign(28.0, 82.0),
        spots: sign(44.0, 92.0),
        sagging: sign(38.0, 90.0),
        thin_lips: sign(30.0, 86.0),
        large_ears: sign(30.0, 92.0),
        hollows: sign(45.0, 92.0),
        weathering: sign(8.0, 88.0),
        rosiness: 1.0 - sign(0.0, 40.0),
    }
}

fn sample_hairstyle(years: f32, gender: Gender, rng: &mut impl Rng) -> Hairstyle {
    use Hairstyle::{Bob, Bun, Buzz, Curly, Down, Long, Short, SidePart};
    if years < 2.0 {
        return Down;
    }
    // Long hair gets rarer with age, as on the street.
    let late = ramp(years, 45.0, 85.0);
    match gender {
        Gender::Male => pick(
            rng,
            &[
                (Buzz, 0.2),
                (Short, 0.36),
                (SidePart, 0.28),
                (Curly, 0.12),
                (Long, 0.05 * (1.0 - late)),
            ],
        ),
        Gender::Female => pick(
            rng,
            &[
                (Long, lerp(0.45, 0.1, late)),
                (Bob, 0.25),
                (Bun, 0.13),
                (Curly, lerp(0.14, 0.28, late)),
                (Short, lerp(0.03, 0.28, late)),
            ],
        ),
    }
}

fn sample_skin(race: Race, signs: &Signs, rng: &mut impl Rng) -> Colour {
    let (light, dark) = match race {
        Race::White => (Colour::rgb(0.98, 0.85, 0.77), Colour::rgb(0.87, 0.67, 0.55)),
        Race::Black => (Colour::rgb(0.60, 0.42, 0.31), Colour::rgb(0.36, 0.24, 0.17)),
        Race::Asian => (Colour::rgb(0.97, 0.84, 0.70), Colour::rgb(0.82, 0.64, 0.47)),
        Race::Indian => (Colour::rgb(0.80, 0.59, 0.43), Colour::rgb(0.50, 0.33, 0.22)),
        Race::Other => (Colour::rgb(0.90, 0.71, 0.56), Colour::rgb(0.58, 0.40, 0.28)),
    };
    let tone = light.mix(dark, rng.random_range(0.0..1.0));
    let sallow = Colour::rgb(0.72, 0.65, 0.56).mix(tone, 0.45);
    tone.mix(sallow, 0.85 * signs.weathering)
}

fn sample_hair(race: Race, years: f32, rng: &mut impl Rng) -> Colour {
    let black = Colour::rgb(0.09, 0.075, 0.07);
    let dark = Colour::rgb(0.2, 0.13, 0.09);
    let brown = Colour::rgb(0.38, 0.24, 0.14);
    let red = Colour::rgb(0.58, 0.27, 0.12);
    let blond = Colour::rgb(0.74, 0.57, 0.32);
    let tint = match race {
        Race::White => pick(
            rng,
            &[(dark, 0.28), (brown, 0.36), (blond, 0.27), (red, 0.09)],
        ),
        Race::Black | Race::Asian | Race::Indian => {
            pick(rng, &[(black, 0.68), (dark, 0.26), (brown, 0.06)])
        }
        Race::Other => pick(rng, &[(black, 0.3), (dark, 0.4), (brown, 0.3)]),
    };
    // Children's hair is often a shade lighter.
    let child = 1.0 - ramp(years, 2.0, 12.0);
    let lighter = tint.mix(blond, 0.35 * child);
    lighter.scale(rng.random_range(0.85..1.2))
}

fn sample_iris(race: Race, rng: &mut impl Rng) -> Colour {
    let brown = Colour::rgb(0.3, 0.18, 0.1);
    let hazel = Colour::rgb(0.45, 0.35, 0.18);
    let green = Colour::rgb(0.36, 0.48, 0.32);
    let blue = Colour::rgb(0.34, 0.52, 0.68);
    match race {
        Race::White => pick(
            rng,
            &[(brown, 0.3), (hazel, 0.2), (green, 0.15), (blue, 0.35)],
        ),
        Race::Other => pick(rng, &[(brown, 0.7), (hazel, 0.2), (green, 0.1)]),
        Race::Black | Race::Asian | Race::Indian => pick(rng, &[(brown, 0.92), (hazel, 0.08)]),
    }
}

fn sample_frame(rng: &mut impl Rng) -> Colour {
    let black = Colour::rgb(0.08, 0.08, 0.09);
    let horn = Colour::rgb(0.4, 0.22, 0.1);
    let metal = Colour::rgb(0.6, 0.58, 0.55);
    let bright = Colour::rgb(
        rng.random_range(0.1..0.7),
        rng.random_range(0.1..0.4),
        rng.random_range(0.1..0.7),
    );
    pick(
        rng,
        &[(black, 0.4), (horn, 0.25), (metal, 0.2), (bright, 0.15)],
    )
}

/// Picks one of several choices by weight. The weights need not add up to one.
fn pick<T: Copy>(rng: &mut impl Rng, choices: &[(T, f32)]) -> T {
    let total: f32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.random_range(0.0..1.0) * total;
    for (choice, weight) in choices {
        left -= weight;
        if left < 0.0 {
            return *choice;
        }
    }
    choices[choices.len() - 1].0
}
