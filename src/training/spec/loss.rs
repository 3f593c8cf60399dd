//! Loss and learning rate schedule.

use crate::{
    proto::{
        v1,
        validation::{Check, Range},
    },
    training::{
        loss::{LossKind, LossSpec},
        schedule::{Schedule, ScheduleKind},
    },
};

pub(super) fn read_loss(check: &mut Check, given: Option<&v1::LossSpec>) -> LossSpec {
    let given = given.copied().unwrap_or_default();
    let kind = match check.choice("spec.loss.kind", given.kind, v1::LossKind::Mse) {
        v1::LossKind::Unspecified | v1::LossKind::Mse => LossKind::Mse,
        v1::LossKind::SmoothL1 => LossKind::SmoothL1,
        v1::LossKind::L1 => LossKind::L1,
    };
    let beta = check.number("spec.loss.beta", given.beta, 1.0, Range::POSITIVE);
    LossSpec { kind, beta }
}

pub(super) fn loss_message(loss: LossSpec) -> v1::LossSpec {
    let kind = match loss.kind {
        LossKind::Mse => v1::LossKind::Mse,
        LossKind::SmoothL1 => v1::LossKind::SmoothL1,
        LossKind::L1 => v1::LossKind::L1,
    };
    v1::LossSpec {
        kind: kind.into(),
        beta: Some(loss.beta),
    }
}

pub(super) fn read_schedule(check: &mut Check, given: Option<&v1::ScheduleSpec>) -> Schedule {
    let given = given.copied().unwrap_or_default();
    let kind = check.choice("spec.schedule.kind", given.kind, v1::ScheduleKind::Constant);
    let warmup = Range {
        contains: |value| (0.0..=1_000.0).contains(&value),
        rule: "from 0 to 1000 epochs",
    };
    let reduction = Range {
        contains: |value| value > 0.0 && value < 1.0,
        rule: "above 0 and below 1",
    };
    Schedule {
        kind: match kind {
            v1::ScheduleKind::Unspecified | v1::ScheduleKind::Constant => ScheduleKind::Constant,
            v1::ScheduleKind::Cosine => ScheduleKind::Cosine,
            v1::ScheduleKind::Plateau => ScheduleKind::Plateau,
        },
        warmup_epochs: check.number(
            "spec.schedule.warmup_epochs",
            given.warmup_epochs,
            0.0,
            warmup,
        ),
        min_factor: check.number(
            "spec.schedule.min_factor",
            given.min_factor,
            0.0,
            Range::SHARE,
        ),
        plateau_factor: check.number(
            "spec.schedule.plateau_factor",
            given.plateau_factor,
            0.1,
            reduction,
        ),
        plateau_patience: check.integer(
            "spec.schedule.plateau_patience",
            given.plateau_patience,
            5,
            0..=10_000,
        ),
    }
}

pub(super) fn schedule_message(schedule: Schedule) -> v1::ScheduleSpec {
    let kind = match schedule.kind {
        ScheduleKind::Constant => v1::ScheduleKind::Constant,
        ScheduleKind::Cosine => v1::ScheduleKind::Cosine,
        ScheduleKind::Plateau => v1::ScheduleKind::Plateau,
    };
    v1::ScheduleSpec {
        kind: kind.into(),
        warmup_epochs: Some(schedule.warmup_epochs),
        min_factor: Some(schedule.min_factor),
        plateau_factor: Some(schedule.plateau_factor),
        plateau_patience: Some(schedule.plateau_patience),
    }
}
