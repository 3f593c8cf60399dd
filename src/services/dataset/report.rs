//! The report of a check as a message.

use crate::{
    dataset::{
        Dataset, NearMember, Sample, Split, age_bands, dataset_report, split_name, split_origin,
    },
    inference::{FilePrediction, ServedModel},
    model::calibration::Calibration,
    proto::v1,
    store::{MAX_PAGE_BYTES, Room},
};

/// Maximum size of each of the three lists in bytes, so that every client accepts the report.
const MAX_LIST_BYTES: usize = MAX_PAGE_BYTES / 3;

/// Maximum number of listed images of a group.
const MAX_OF_GROUP: usize = 20;

/// Interval bounds are errors of validation images, whose predictions differ by rounding between
/// batches.
const ROUNDING_YEARS: f64 = 0.01;

/// Maximum number of listed groups and outliers.
#[derive(Clone, Copy)]
pub(super) struct Limit(pub(super) usize);

/// Creates the report except for the path, the outliers and the duration. `near` is the maximum
/// distance of near-duplicates.
pub(super) fn report(dataset: &Dataset, near: Option<u32>, limit: Limit) -> v1::DatasetCheck {
    let identical = dataset.identical();
    let exact = identical.iter().map(|group| {
        let same = |(split, sample): &(Split, &Sample)| image(*split, sample, 0, false);
        group.iter().map(same).collect()
    });
    let lookalikes = dataset.near.iter().flatten().map(|group| {
        let alike = |member: &NearMember| {
            let sample = &dataset.split(member.split)[member.index];
            image(member.split, sample, member.distance, member.is_mirrored)
        };
        group.iter().map(alike).collect()
    });
    v1::DatasetCheck {
        dataset: Some(dataset_report(dataset)),
        ages: age_bands(dataset),
        split_origin: split_origin(dataset).into(),
        ignored_files: dataset.report.ignored,
        exact: Some(duplicates(exact, 0, limit)),
        near: near.map(|distance| duplicates(lookalikes, distance, limit)),
        ..Default::default()
    }
}

/// Counts groups and lists the most severe.
fn duplicates(
    groups: impl Iterator<Item = Vec<v1::DuplicateImage>>,
    max_distance: u32,
    limit: Limit,
) -> v1::DuplicateReport {
    let mut found = v1::DuplicateReport {
        max_distance,
        ..Default::default()
    };
    let mut listed = Vec::new();
    for mut images in groups {
        let (first_split, first_age) = match images.first() {
            Some(first) => (first.split.clone(), first.age),
            None => continue,
        };
        let straddles = images.iter().any(|image| image.split != first_split);
        let conflicts = images.iter().any(|image| image.age != first_age);
        let size = images.len() as u64;
        let gap = age_gap(&images);
        images.truncate(MAX_OF_GROUP);
        found.groups += 1;
        found.images += size;
        found.straddling_groups += u64::from(straddles);
        found.conflicting_groups += u64::from(conflicts);
        let group = v1::DuplicateGroup {
            straddles,
            conflicts,
            size,
            images,
        };
        listed.push((gap, group));
    }
    // Stable, so equal groups stay sorted by name.
    listed.sort_by(|(gap, one), (other_gap, other)| {
        let straddles = other.straddles.cmp(&one.straddles);
        straddles.then(other_gap.total_cmp(gap))
    });
    let mut room = Room::new(limit.0, MAX_LIST_BYTES);
    found.listed = listed
        .into_iter()
        .map(|(_, group)| group)
        .take_while(|group| room.take(group))
        .collect();
    found
}

/// Years between the lowest and the highest age.
fn age_gap(images: &[v1::DuplicateImage]) -> f64 {
    let ages = || images.iter().map(|image| image.age);
    ages().fold(0.0, f64::max) - ages().fold(f64::INFINITY, f64::min)
}

fn image(split: Split, sample: &Sample, distance: u32, mirrored: bool) -> v1::DuplicateImage {
    v1::DuplicateImage {
        file: sample.name.clone(),
        split: split_name(split).to_owned(),
        age: f64::from(sample.age),
        distance,
        mirrored,
    }
}

/// Compares the predictions of all samples, split by split, with their labels.
pub(super) fn label_outliers(
    model: &ServedModel,
    dataset: &Dataset,
    predictions: Vec<FilePrediction>,
    limit: Limit,
) -> v1::LabelOutliers {
    let mut found = v1::LabelOutliers {
        model_version: model.name.clone(),
        ..Default::default()
    };
    let Some(calibration) = &model.calibration else {
        return found;
    };
    // Levels are ascending.
    found.level = calibration.levels.last().map_or(0.0, |last| last.level);
    let samples = Split::ALL.into_iter().flat_map(|split| {
        let samples = dataset.split(split).iter();
        samples.map(move |sample| (split, sample))
    });
    for ((split, sample), prediction) in samples.zip(predictions) {
        let Ok(predicted) = prediction else {
            found.skipped_images += 1;
            continue;
        };
        found.images += 1;
        found
            .listed
            .extend(outlier(calibration, found.level, split, sample, predicted));
    }
    found.outside = found.listed.len() as u64;
    found
        .listed
        .sort_by(|one, other| other.ratio.total_cmp(&one.ratio));
    let mut room = Room::new(limit.0, MAX_LIST_BYTES);
    let fitting = found
        .listed
        .iter()
        .take_while(|outlier| room.take(*outlier));
    let fitting = fitting.count();
    found.listed.truncate(fitting);
    found
}

/// Returns `None` for an age inside of the interval.
fn outlier(
    calibration: &Calibration,
    level: f64,
    split: Split,
    sample: &Sample,
    predicted: f64,
) -> Option<v1::LabelOutlier> {
    let half_width = calibration.half_width(level, predicted)?;
    let (lower, upper) = calibration.interval(level, predicted)?;
    let age = f64::from(sample.age);
    // A version without errors on its validation images has intervals of width 0.
    let error = (predicted - age).abs();
    let ratio = error / half_width.max(f64::EPSILON);
    (error > half_width + ROUNDING_YEARS).then(|| v1::LabelOutlier {
        file: sample.name.clone(),
        split: split_name(split).to_owned(),
        age,
        predicted,
        lower,
        upper,
        ratio,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::calibration::HalfWidth;

    fn image(file: &str, split: &str, age: f64) -> v1::DuplicateImage {
        v1::DuplicateImage {
            file: file.to_owned(),
            split: split.to_owned(),
            age,
            ..Default::default()
        }
    }

    #[test]
    fn groups_that_straddle_come_first_and_then_those_whose_ages_are_furthest_apart() {
        let groups = [
            vec![image("a", "train", 3.0), image("b", "train", 3.0)],
            vec![image("b1", "train", 3.0), image("b2", "train", 4.0)],
            vec![image("c", "train", 3.0), image("d", "train", 7.0)],
            vec![image("e", "train", 5.0), image("f", "test", 5.0)],
            vec![image("g", "train", 6.0); 50],
        ];
        let found = duplicates(groups.into_iter(), 7, Limit(3));
        assert_eq!((found.groups, found.images, found.max_distance), (5, 58, 7));
        assert_eq!((found.straddling_groups, found.conflicting_groups), (1, 2));
        let first = |group: &v1::DuplicateGroup| group.images[0].file.clone();
        let listed: Vec<String> = found.listed.iter().map(first).collect();
        assert_eq!(listed, ["e", "c", "b1"]);
        let large = duplicates(
            [vec![image("g", "train", 6.0); 50]].into_iter(),
            0,
            Limit(1),
        );
        assert_eq!(
            (large.listed[0].size, large.listed[0].images.len()),
            (50, 20)
        );
    }

    #[test]
    fn a_list_of_long_names_is_cut_by_bytes() {
        let name = |number: u32| format!("{number:04}{}", "x".repeat(2_000));
        let twins = |number| vec![image(&name(number), "train", 3.0); 20];
        let found = duplicates((0..1000).map(twins), 0, Limit(1000));
        assert_eq!(found.groups, 1000);
        let bytes = prost::Message::encoded_len(&found);
        assert!((900_000..1_100_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_outlier_is_as_many_half_widths_off_as_its_ratio_says() {
        let calibration = Calibration {
            confidence: 0.5,
            half_width: 4.0,
            images: 9,
            levels: vec![HalfWidth {
                level: 0.5,
                half_width: 4.0,
            }],
            bands: Vec::new(),
        };
        let sample = |age| Sample {
            name: "faces/3.jpg".to_owned(),
            path: "/faces/3.jpg".into(),
            age,
            labels: Default::default(),
            bytes: 1,
            content_hash: [0; 32],
        };
        let judge =
            |age, predicted| outlier(&calibration, 0.5, Split::Val, &sample(age), predicted);
        assert_eq!(judge(20.0, 24.0), None);
        assert_eq!(judge(20.0, 16.0), None);
        let found = judge(13.0, 3.0).unwrap();
        assert_eq!((found.ratio, found.lower, found.upper), (2.5, 0.0, 7.0));
        assert_eq!(found.split, "validation");
    }
}
