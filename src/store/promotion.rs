//! Rule by which a new model version becomes `live`.

use crate::proto::{v1 as pb, worker_v1::Comparison};

/// Smallest number of images that a comparison needs.
pub(crate) const MIN_COMPARED_IMAGES: u64 = 50;

/// Rule by which a new version becomes `live`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promotion {
    Always,
    /// If `live` does not exist, or has a higher error on the same images.
    IfBetter,
    Never,
}

/// Facts that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) rule: Promotion,
    /// Id of the model.
    pub(super) model: &'a str,
    /// Number of the new version.
    pub(super) version: u64,
    /// Number of the live version now.
    pub(super) live: Option<u64>,
    /// Comparison with the version that was live when the training ended; `None` if its process
    /// did not get that far.
    pub(super) comparison: Option<&'a Comparison>,
}

/// Decides whether a new version becomes `live`.
pub(super) fn decide(facts: Facts<'_>) -> pb::Promotion {
    let (promoted, reason) = verdict(facts);
    let compared = facts
        .comparison
        .filter(|_| facts.rule == Promotion::IfBetter)
        .cloned()
        .unwrap_or_default();
    let is_compared = obstacle(&compared).is_none() && compared.live_version > 0;
    let name = |number: u64| format!("models/{}/versions/{number}", facts.model);
    pb::Promotion {
        promoted,
        live_version: facts.live.map(name).unwrap_or_default(),
        mse: if is_compared { compared.mse } else { 0.0 },
        live_mse: if is_compared { compared.live_mse } else { 0.0 },
        images: if is_compared { compared.images } else { 0 },
        excluded_images: compared.excluded_images,
        reason,
    }
}

/// Relative difference of two mean squared errors that rounding causes: equal weights have other
/// last digits if their images were in other batches.
const ROUNDING: f64 = 1e-6;

/// Returns the decision, and its reason as a sentence.
fn verdict(facts: Facts<'_>) -> (bool, String) {
    let Facts { version, live, .. } = facts;
    match facts.rule {
        Promotion::Always => return (true, "promote is ALWAYS".to_owned()),
        Promotion::Never => return (false, "promote is NEVER".to_owned()),
        Promotion::IfBetter => {}
    }
    let refuse = |reason: String| (false, format!("{reason} -> not promoted"));
    let was_live = facts.comparison.map(|comparison| comparison.live_version);
    let Some(live) = live else {
        return match was_live {
            None | Some(0) => (true, "there was no live version -> promoted".to_owned()),
            Some(was_live) => refuse(format!(
                "the alias live was deleted while version {version} was compared with version {was_live}"
            )),
        };
    };
    let Some(comparison) = facts.comparison else {
        return refuse(format!(
            "version {version} was not compared with live version {live}, because the process of the training ended early"
        ));
    };
    if comparison.failure.is_empty() && comparison.live_version != live {
        let before = match comparison.live_version {
            0 => "no version".to_owned(),
            number => format!("version {number}"),
        };
        return refuse(format!(
            "live moved from {before} to version {live} while version {version} was compared"
        ));
    }
    if let Some(obstacle) = obstacle(comparison) {
        return refuse(format!(
            "version {version} was not compared with live version {live}, because {}",
            obstacle.describe(version, live)
        ));
    }
    let promoted = comparison.mse < comparison.live_mse * (1.0 - ROUNDING);
    let excluded = match comparison.excluded_images {
        0 => String::new(),
        excluded => {
            format!("; {excluded} more are excluded, because a version was trained on them")
        }
    };
    let reason = format!(
        "version {version}: {:.2}, live version {live}: {:.2} on the same images -> {} (MSE on {} validation images{excluded})",
        comparison.mse,
        comparison.live_mse,
        if promoted { "promoted" } else { "not promoted" },
        comparison.images,
    );
    (promoted, reason)
}

/// Reason why two versions were not compared.
enum Obstacle<'a> {
    Failure(&'a str),
    Unrecorded { is_new: bool, is_live: bool },
    TooFew { images: u64, excluded: u64 },
}

fn obstacle(comparison: &Comparison) -> Option<Obstacle<'_>> {
    let (is_new, is_live) = (comparison.is_unrecorded, comparison.is_live_unrecorded);
    if !comparison.failure.is_empty() {
        Some(Obstacle::Failure(&comparison.failure))
    } else if is_new || is_live {
        Some(Obstacle::Unrecorded { is_new, is_live })
    } else if comparison.images < MIN_COMPARED_IMAGES {
        Some(Obstacle::TooFew {
            images: comparison.images,
            excluded: comparison.excluded_images,
        })
    } else {
        None
    }
}

impl Obstacle<'_> {
    /// A clause that follows "because".
    fn describe(&self, version: u64, live: u64) -> String {
        match *self {
            Obstacle::Failure(cause) => format!("the comparison failed: {cause}"),
            Obstacle::Unrecorded { is_new, is_live } => {
                let which = match (is_new, is_live) {
                    (true, true) => "both versions were".to_owned(),
                    (true, false) => format!("version {version} was"),
                    (false, _) => format!("version {live} was"),
                };
                format!("the images that {which} trained on are not recorded")
            }
            Obstacle::TooFew {
                images,
                excluded: 0,
            } => format!(
                "the dataset has only {images} validation images, and a comparison needs {MIN_COMPARED_IMAGES}"
            ),
            Obstacle::TooFew {
                images: 0,
                excluded,
            } => format!("they were trained on all {excluded} validation images"),
            Obstacle::TooFew { images, excluded } => format!(
                "they were trained on {excluded} of the {} validation images, which leaves {images} of the required {MIN_COMPARED_IMAGES}",
                images + excluded
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(mse: f64, live_mse: f64) -> Comparison {
        Comparison {
            live_version: 1,
            images: 120,
            mse,
            live_mse,
            ..Default::default()
        }
    }

    fn decide_if_better(live: Option<u64>, comparison: Option<&Comparison>) -> pb::Promotion {
        decide(Facts {
            rule: Promotion::IfBetter,
            model: "age",
            version: 3,
            live,
            comparison,
        })
    }

    #[test]
    fn the_better_version_on_the_same_images_is_promoted() {
        let none = Comparison::default();
        let better = compared(42.99, 47.0);
        let equal = compared(3_005.983_446_372, 3_005.983_446_616);
        assert!(!decide_if_better(Some(1), Some(&equal)).promoted);
        let excluding = Comparison {
            excluded_images: 8,
            ..better.clone()
        };
        let cases = [
            (None, None, true, "there was no live version -> promoted"),
            (
                None,
                Some(none.clone()),
                true,
                "there was no live version -> promoted",
            ),
            (
                Some(1),
                Some(better.clone()),
                true,
                "version 3: 42.99, live version 1: 47.00 on the same images -> promoted (MSE on 120 validation images)",
            ),
            (
                Some(1),
                Some(excluding),
                true,
                "version 3: 42.99, live version 1: 47.00 on the same images -> promoted (MSE on 120 validation images; 8 more are excluded, because a version was trained on them)",
            ),
            (
                Some(1),
                Some(compared(47.0, 47.0)),
                false,
                "version 3: 47.00, live version 1: 47.00 on the same images -> not promoted (MSE on 120 validation images)",
            ),
            (
                Some(1),
                Some(compared(f64::NAN, 47.0)),
                false,
                "version 3: NaN, live version 1: 47.00 on the same images -> not promoted (MSE on 120 validation images)",
            ),
            (
                Some(1),
                None,
                false,
                "version 3 was not compared with live version 1, because the process of the training ended early -> not promoted",
            ),
            (
                Some(2),
                Some(better.clone()),
                false,
                "live moved from version 1 to version 2 while version 3 was compared -> not promoted",
            ),
            (
                Some(2),
                Some(none),
                false,
                "live moved from no version to version 2 while version 3 was compared -> not promoted",
            ),
            (
                None,
                Some(better.clone()),
                false,
                "the alias live was deleted while version 3 was compared with version 1 -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    failure: "no such file".to_owned(),
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because the comparison failed: no such file -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    is_unrecorded: true,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because the images that version 3 was trained on are not recorded -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    is_live_unrecorded: true,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because the images that version 1 was trained on are not recorded -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    is_unrecorded: true,
                    is_live_unrecorded: true,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because the images that both versions were trained on are not recorded -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    images: 49,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because the dataset has only 49 validation images, and a comparison needs 50 -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    images: 9,
                    excluded_images: 47,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because they were trained on 47 of the 56 validation images, which leaves 9 of the required 50 -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    images: 0,
                    excluded_images: 22,
                    ..better.clone()
                }),
                false,
                "version 3 was not compared with live version 1, because they were trained on all 22 validation images -> not promoted",
            ),
            (
                Some(1),
                Some(Comparison {
                    images: 50,
                    ..better
                }),
                true,
                "version 3: 42.99, live version 1: 47.00 on the same images -> promoted (MSE on 50 validation images)",
            ),
        ];
        for (live, comparison, promoted, reason) in cases {
            let found = decide_if_better(live, comparison.as_ref());
            assert_eq!((found.promoted, found.reason.as_str()), (promoted, reason));
        }
    }

    #[test]
    fn a_decision_has_the_compared_errors() {
        let comparison = Comparison {
            excluded_images: 8,
            ..compared(42.5, 47.25)
        };
        let found = decide_if_better(Some(1), Some(&comparison));
        let expected = pb::Promotion {
            promoted: true,
            live_version: "models/age/versions/1".to_owned(),
            mse: 42.5,
            live_mse: 47.25,
            images: 120,
            excluded_images: 8,
            reason: found.reason.clone(),
        };
        assert_eq!(found, expected);
        let too_few = Comparison {
            images: 3,
            ..comparison
        };
        let found = decide_if_better(Some(1), Some(&too_few));
        assert_eq!((found.mse, found.live_mse, found.images), (0.0, 0.0, 0));
        assert_eq!(found.excluded_images, 8);
    }

    #[test]
    fn always_and_never_ignore_the_live_version() {
        for (rule, promoted) in [(Promotion::Always, true), (Promotion::Never, false)] {
            for live in [None, Some(1)] {
                let found = decide(Facts {
                    rule,
                    model: "age",
                    version: 3,
                    live,
                    comparison: None,
                });
                assert_eq!((found.promoted, found.images), (promoted, 0));
            }
        }
    }
}
