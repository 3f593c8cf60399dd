//! Random augmentation of training images.

use crate::{
    imaging::augment::Augmentation,
    proto::{
        v1,
        validation::{Check, Range},
    },
};

pub(super) fn read(check: &mut Check, given: Option<&v1::AugmentationSpec>) -> Augmentation {
    let given = given.copied().unwrap_or_default();
    let area = Range {
        contains: |value| value > 0.0 && value <= 1.0,
        rule: "above 0 and at most 1",
    };
    let mut number = |name: &str, given, default, allowed| {
        check.number(
            &format!("spec.augmentation.{name}"),
            given,
            default,
            allowed,
        )
    };
    Augmentation {
        horizontal_flip: given.horizontal_flip.unwrap_or(false),
        min_crop_area: number("min_crop_area", given.min_crop_area, 1.0, area),
        brightness: number("brightness", given.brightness, 0.0, Range::SHARE),
        contrast: number("contrast", given.contrast, 0.0, Range::SHARE),
        saturation: number("saturation", given.saturation, 0.0, Range::SHARE),
        erasing: number("erasing", given.erasing, 0.0, Range::SHARE),
    }
}

pub(super) fn message(augmentation: &Augmentation) -> v1::AugmentationSpec {
    v1::AugmentationSpec {
        horizontal_flip: Some(augmentation.horizontal_flip),
        min_crop_area: Some(augmentation.min_crop_area),
        brightness: Some(augmentation.brightness),
        contrast: Some(augmentation.contrast),
        saturation: Some(augmentation.saturation),
        erasing: Some(augmentation.erasing),
    }
}
