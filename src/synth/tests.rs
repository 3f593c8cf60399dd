//! Equal bytes, well-formed names, evenly distributed ages, and no change of other files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fs_err as fs;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Error, Options, Person,
    directory::{PARTIAL, Summary, age_of},
    write_faces,
};

fn few(count: usize, seed: u64) -> Options {
    Options {
        count,
        seed,
        size: 64,
        ..Options::default()
    }
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn made(options: &Options) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    write_faces(directory.path(), options, |_| ()).unwrap();
    contents(directory.path())
}

#[test]
fn same_options_give_the_same_bytes_and_another_seed_gives_others() {
    let first = made(&few(6, 3));
    assert_eq!(first, made(&few(6, 3)));
    let others = made(&few(6, 4));
    assert!(
        others
            .values()
            .all(|bytes| !first.values().any(|other| other == bytes))
    );
}

#[test]
fn a_larger_count_only_adds_images() {
    let more = made(&few(7, 3));
    assert!(
        made(&few(4, 3))
            .iter()
            .all(|(name, bytes)| more.get(name) == Some(bytes))
    );
}

#[test]
fn names_follow_utkface_and_images_have_the_size_asked_for() {
    for (name, bytes) in made(&few(12, 5)) {
        let fields: Vec<&str> = name
            .strip_suffix(".jpg.chip.jpg")
            .unwrap()
            .split('_')
            .collect();
        let [age, gender, race, stamp] = fields.try_into().unwrap();
        assert!((1..=90).contains(&age.parse::<u8>().unwrap()));
        assert!(gender.parse::<u8>().unwrap() <= 1 && race.parse::<u8>().unwrap() <= 4);
        assert!(stamp.len() == 17 && stamp.parse::<u64>().is_ok());
        let image = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg).unwrap();
        assert_eq!((image.width(), image.height()), (64, 64));
    }
}

#[test]
fn ages_cover_the_range_evenly() {
    let options = Options {
        count: 900,
        ..Options::default()
    };
    let mut seen: BTreeMap<u8, usize> = BTreeMap::new();
    for index in 0..options.count {
        *seen.entry(age_of(&options, index)).or_default() += 1;
    }
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        (1..=90).collect::<Vec<_>>()
    );
    // Ten images for each of the ninety ages, give or take.
    assert!(
        seen.values().all(|images| (7..=13).contains(images)),
        "{seen:?}"
    );
    let single = Options {
        ages: 255..=255,
        ..options.clone()
    };
    assert_eq!(age_of(&single, 77), 255);
    let all = Options {
        ages: 0..=255,
        ..options
    };
    assert!(
        (0..2000)
            .map(|index| age_of(&all, index))
            .collect::<BTreeSet<_>>()
            .len()
            == 256
    );
}

#[test]
fn refuses_a_directory_with_anything_else_in_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let error = write_faces(directory.path(), &few(3, 1), |_| ()).unwrap_err();
    assert!(error.to_string().contains("\"notes.txt\""), "{error}");
    assert_eq!(contents(directory.path()).len(), 1);
}

#[test]
fn refuses_the_result_of_other_options() {
    let directory = tempfile::tempdir().unwrap();
    write_faces(directory.path(), &few(5, 1), |_| ()).unwrap();
    let before = contents(directory.path());
    let larger = Options {
        size: 72,
        ..few(5, 1)
    };
    for other in [few(5, 2), few(4, 1), larger] {
        let outcome = write_faces(directory.path(), &other, |_| ());
        assert!(
            matches!(outcome, Err(Error::Foreign { .. })),
            "{other:?}: {outcome:?}"
        );
    }
    assert_eq!(contents(directory.path()), before);
}

#[test]
fn repeating_a_finished_run_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut calls = Vec::new();
    let first = write_faces(directory.path(), &few(5, 1), |done| calls.push(done)).unwrap();
    assert_eq!(
        (first, calls),
        (
            Summary {
                written: 5,
                kept: 0
            },
            vec![1, 2, 3, 4, 5]
        )
    );
    let time = |name: &str| {
        fs::metadata(directory.path().join(name))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = contents(directory.path());
    let times: Vec<_> = before.keys().map(|name| time(name)).collect();
    let second = write_faces(directory.path(), &few(5, 1), |_| ()).unwrap();
    assert_eq!(
        second,
        Summary {
            written: 0,
            kept: 5
        }
    );
    assert_eq!(contents(directory.path()), before);
    assert_eq!(
        before.keys().map(|name| time(name)).collect::<Vec<_>>(),
        times
    );
}

#[test]
fn repeating_an_interrupted_run_adds_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    write_faces(directory.path(), &few(5, 1), |_| ()).unwrap();
    let whole = contents(directory.path());
    let name = whole.keys().next().unwrap();
    let image = directory.path().join(name);
    fs::rename(&image, directory.path().join(format!("{name}{PARTIAL}"))).unwrap();
    let summary = write_faces(directory.path(), &few(5, 1), |_| ()).unwrap();
    assert_eq!(
        summary,
        Summary {
            written: 1,
            kept: 4
        }
    );
    assert_eq!(contents(directory.path()), whole);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "the empty range is the point")]
fn refuses_options_out_of_range() {
    let directory = tempfile::tempdir().unwrap();
    let draw = |options: Options| {
        write_faces(directory.path(), &options, |_| ())
            .unwrap_err()
            .to_string()
    };
    let none = draw(few(0, 1));
    assert!(none == "count must be 1 to 1000000000, got 0", "{none}");
    let tiny = draw(Options {
        size: 8,
        ..few(1, 1)
    });
    assert_eq!(tiny, "size must be 32 to 2048 pixels, got 8");
    let backwards = draw(Options {
        ages: 9..=3,
        ..few(1, 1)
    });
    assert!(backwards.ends_with("got 9 to 3"), "{backwards}");
}

#[test]
fn old_hair_is_grey_and_a_child_has_no_lines() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut mean = |age: u8| {
        let people: Vec<Person> = (0..200).map(|_| Person::sample(age, &mut rng)).collect();
        let grey: f32 = people.iter().map(|person| person.signs.grey_hair).sum();
        let lines: f32 = people
            .iter()
            .map(|person| person.signs.forehead_lines)
            .sum();
        (grey / 200.0, lines / 200.0)
    };
    assert_eq!(mean(6), (0.0, 0.0));
    let (middle, old) = (mean(50), mean(80));
    assert!(
        middle.0 > 0.15 && middle.0 < 0.6 && old.0 > 0.8,
        "{middle:?} {old:?}"
    );
    assert!(
        middle.1 > 0.3 && middle.1 < 0.7 && old.1 > 0.9,
        "{middle:?} {old:?}"
    );
}

/// The engine chooses the precision of a model by its ages on these images, so that another drawing
/// of them could change the choice.
#[test]
fn probes_of_the_engine_are_drawings() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inference/probes");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for age in [2, 9, 17, 25, 34, 46, 61, 80] {
        let person = Person::sample(age, &mut rng);
        let drawn = person.draw(128, &mut rng).unwrap();
        let probe = image::open(directory.join(format!("age-{age:02}.png"))).unwrap();
        assert_eq!(probe.into_rgb8(), drawn, "{age}");
    }
}
