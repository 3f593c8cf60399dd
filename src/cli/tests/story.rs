//! Events of the training of the tests, `trainings/t`.

use crate::{
    cli::tests::fake::State,
    proto::v1::{
        EpochMetrics, StateChanged, StopReason, Training, TrainingEvent, TrainingState,
        training_event::Kind,
    },
};

pub(super) fn event(sequence: u64, kind: Kind) -> TrainingEvent {
    TrainingEvent {
        training: "trainings/t".to_owned(),
        sequence,
        resume_token: format!("token-{sequence}"),
        attempt: 1,
        kind: Some(kind),
        ..TrainingEvent::default()
    }
}

pub(super) fn epoch(number: u32) -> Kind {
    Kind::EpochCompleted(EpochMetrics {
        epoch: number,
        max_epochs: 10,
        train_loss: 580.8863,
        val_loss: 184.5743,
        val_rmse: 13.586,
        val_mae: 10.2,
        images_per_second: 24.1,
        eta: Some(prost_types::Duration {
            seconds: 130,
            nanos: 0,
        }),
        ..EpochMetrics::default()
    })
}

pub(super) fn state_changed(state: TrainingState) -> Kind {
    Kind::StateChanged(StateChanged {
        state: state.into(),
        ..StateChanged::default()
    })
}

/// A training that ran for ten epochs and ended in this state.
pub(super) fn ended(state: TrainingState) -> State {
    let mut events = vec![event(1, state_changed(TrainingState::Running))];
    events.extend((1..=10).map(|number| event(u64::from(number) + 1, epoch(number))));
    events.push(event(12, state_changed(state)));
    State {
        events,
        training: Training {
            name: "trainings/t".to_owned(),
            state: state.into(),
            stop_reason: StopReason::MaxEpochs.into(),
            last_sequence: 12,
            model_version: "models/age/versions/3".to_owned(),
            ..Training::default()
        },
        ..State::default()
    }
}
