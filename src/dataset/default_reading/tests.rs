//! Doubts about drawn file names.

use super::{super::names, DefaultReading, path::file_name};

fn doubt(paths: impl IntoIterator<Item = String>) -> Option<String> {
    let mut reading = DefaultReading::default();
    for path in paths {
        reading.add(&path, names::age(file_name(&path)));
    }
    reading.doubt()
}

/// A number between 1 and `limit` without a pattern that a rule could find.
fn scattered(index: u32, limit: u32) -> u32 {
    1 + (index.wrapping_mul(2_654_435_761) >> 8) % limit
}

#[test]
fn names_of_other_datasets_are_named_with_their_pattern() {
    type Name = fn(u32) -> String;
    let cases: [(&str, Name); 7] = [
        ("\"agedb\"", |n| {
            format!(
                "{n}_Person{}_{}_{}.jpg",
                n % 9,
                20 + n % 60,
                ["m", "f"][n as usize % 2]
            )
        }),
        ("\"morph\"", |n| {
            format!("{n:06}_{}M{}.JPG", n % 3, 16 + n % 50)
        }),
        ("\"fgnet\"", |n| format!("{:03}A{n:02}.JPG", n % 40 + 1)),
        ("\"afad\"", |n| {
            format!("{}/11{}/{}-0.jpg", 15 + n % 40, 1 + n % 2, 100 + n)
        }),
        ("\"directory\"", |n| {
            format!(
                "train/{:03}/{n}.png",
                [1, 5, 23, 34, 57, 80][n as usize % 6]
            )
        }),
        ("\"directory\"", |n| format!("{}/face_{n}.png", 1 + n % 6)),
        ("gt_avg_train.csv", |n| {
            format!(
                "train/{:06}.jpg{}",
                n / 2,
                ["", "_face.jpg"][n as usize % 2]
            )
        }),
    ];
    for (remedy, name) in cases {
        let found = doubt((0..40).map(name)).unwrap_or_default();
        assert!(found.contains(remedy), "{}: {found}", name(1));
    }
}

#[test]
fn ranges_of_ages_are_doubted() {
    type Name = fn(u32, u32, u32) -> String;
    let names: [Name; 8] = [
        |from, to, n| format!("{from}-{to}_{n:04}.jpg"),
        |from, to, n| format!("({from}, {to})_{n}.jpg"),
        |from, to, n| format!("{from} - {to} {n}.jpg"),
        |from, to, n| format!("{from}–{to}_{n}.jpg"),
        |from, to, n| format!("{from}_to_{to}_{n}.jpg"),
        |from, to, n| format!("{from}_{to}_{n}.jpg"),
        |from, to, n| format!("{from}-{to}/{n}.jpg"),
        |from, to, n| format!("train/{from}_{to}/img{n}.jpg"),
    ];
    let bins = [
        (0, 2),
        (4, 6),
        (8, 12),
        (15, 20),
        (25, 32),
        (38, 43),
        (48, 53),
        (60, 100),
    ];
    for name in names {
        let paths = (0..40).map(|n| {
            let (from, to) = bins[n as usize % bins.len()];
            name(from, to, n)
        });
        let found = doubt(paths).unwrap_or_default();
        assert!(
            found.contains("a range is not an age"),
            "{}: {found}",
            name(25, 32, 1)
        );
    }
    let sliding = doubt((0..40).map(|n| format!("{}-{}.jpg", 10 + n, 15 + n)));
    assert!(
        sliding
            .unwrap_or_default()
            .contains("a range is not an age")
    );
    // Some among ages.
    let mixed = (0..40).map(|n| match n % 10 {
        0 => format!("25-30_{n}.jpg"),
        _ => format!("{}_{n}.jpg", scattered(n, 80)),
    });
    let found = doubt(mixed).unwrap();
    assert!(
        found.starts_with("4 of 40 file names begin with a range of ages, such as \"25-30_0.jpg\""),
        "{found}"
    );
}

#[test]
fn running_numbers_are_doubted() {
    let cases: [fn(u32) -> String; 6] = [
        |n| format!("{n:06}.jpg"),
        |n| format!("{n}.jpg"),
        |n| format!("{}_anna.jpg", n + 1),
        |n| {
            format!(
                "{}_{}.jpg",
                n / 3,
                ["left", "front", "right"][n as usize % 3]
            )
        },
        |n| format!("{}_x.jpg", n + 60),
        |n| format!("2017010{n}_party.jpg"),
    ];
    for name in cases {
        let found = doubt((0..60).map(name)).unwrap_or_default();
        assert!(
            found.contains("as running numbers and not as ages"),
            "{}: {found}",
            name(1)
        );
    }
}

#[test]
fn one_number_in_front_of_all_names_is_doubted() {
    let found = doubt((0..10).map(|n| format!("3_{}.jpg", 20 + n * 3))).unwrap();
    assert!(found.contains("begin with the number 3"), "{found}");
}

#[test]
fn names_that_begin_with_the_age_are_not_doubted() {
    let cases: [fn(u32) -> String; 14] = [
        |n| {
            format!(
                "{}_{}_{}_2017010312{n:07}.jpg.chip.jpg",
                scattered(n, 100),
                n % 2,
                n % 5
            )
        },
        |n| format!("{}_{}_2017010312{n:07}.jpg", scattered(n, 100), n % 2),
        // One image per age, in UTKFace's form.
        |n| format!("{n}_0_0_2017010312{n:07}.jpg"),
        |n| {
            format!(
                "train/{}_{}_{}_2017010312{n:07}.jpg",
                scattered(n, 100),
                n % 2,
                n % 5
            )
        },
        // Portions of a dataset, and one directory per person.
        |n| {
            format!(
                "{}/{}_{}_0_2017010312{n:07}.jpg",
                1 + n % 3,
                scattered(n, 100),
                n % 2
            )
        },
        |n| format!("{:03}/{}_x.jpg", n / 4, scattered(n, 80)),
        // A directory per age or per decade, and the age in the name as well.
        |n| format!("{0}/{0}_{n}.jpg", scattered(n, 80)),
        |n| {
            format!(
                "{0}-{1}/{2}_{n}.jpg",
                scattered(n, 80) / 10 * 10,
                scattered(n, 80) / 10 * 10 + 9,
                scattered(n, 80)
            )
        },
        |n| format!("{}-{n}.jpg", scattered(n, 80)),
        |n| format!("{}-{}.jpg", scattered(n, 5), 10 + n),
        |n| format!("{}_{n}.jpg", scattered(n, 80)),
        |n| format!("{}_{}_{}.jpg", 20 + n % 20, 101 + n % 30, n % 4),
        |n| format!("{}_Some_Name_{n:04}.jpg", 20 + n % 40),
        |n| format!("{}.5_x.jpg", scattered(n, 80)),
    ];
    for name in cases {
        for count in [1, 4, 12, 40, 200] {
            assert_eq!(doubt((0..count).map(name)), None, "{} {count}", name(1));
        }
    }
    assert_eq!(doubt([]), None);
}
