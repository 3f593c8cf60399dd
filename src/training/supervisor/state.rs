//! The state machine of a training.
//!
//! [`next`] decides every transition. It is pure and runs inside the store's transaction, so that a
//! stop, a success and a crash that race end in one of their outcomes and never between them.

use std::time::SystemTime;

use crate::{
    proto::v1::{self, StopReason, TrainingState},
    store::is_final,
    training::control::ControlSignal,
};

use super::Error;

/// A request of a client, a step of the scheduler or an event of the worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    Stop {
        has_best: bool,
    },
    Pause,
    Resume,
    Cancel,
    UpdateSpec,
    /// The scheduler starts a process.
    Prepare,
    /// The process makes its first training step.
    Train,
    /// The process paused and exited.
    Release,
    /// The process is gone and shall be started again when the disk has room.
    Suspend,
    /// The process is gone and shall be started again.
    Requeue,
    Finish(Outcome),
}

/// Result of a training that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The training has ended.
    Ended,
    /// The trigger does not apply to this state.
    NotNow,
}

/// Returns the state after a trigger, which may be the same state.
pub(super) fn next(state: TrainingState, trigger: Trigger) -> Result<TrainingState, Refusal> {
    use TrainingState as S;
    if is_final(state) {
        return Err(Refusal::Ended);
    }
    Ok(match (trigger, state) {
        // Without a process and a checkpoint nothing is left to wait for or to keep.
        (Trigger::Stop { has_best: false }, S::Queued | S::Paused) => S::Cancelled,
        (Trigger::Stop { .. }, S::Cancelling) => S::Cancelling,
        (Trigger::Stop { .. }, _) => S::Stopping,
        (Trigger::Pause, S::Queued | S::Paused) => S::Paused,
        (Trigger::Pause, S::Stopping | S::Cancelling) => return Err(Refusal::NotNow),
        (Trigger::Pause, _) => S::Pausing,
        (Trigger::Resume, S::Paused) => S::Queued,
        (Trigger::Resume, S::Pausing | S::Stopping | S::Cancelling) => {
            return Err(Refusal::NotNow);
        }
        (Trigger::Resume, _) => state,
        (Trigger::Cancel, S::Queued | S::Paused) => S::Cancelled,
        (Trigger::Cancel, _) => S::Cancelling,
        (Trigger::UpdateSpec, _) => state,
        (Trigger::Prepare, S::Queued) => S::Preparing,
        (Trigger::Prepare, _) => return Err(Refusal::NotNow),
        (Trigger::Train, S::Preparing) => S::Running,
        (Trigger::Train, _) => state,
        (Trigger::Release | Trigger::Requeue, S::Pausing) => S::Paused,
        // A training that pauses for a shutdown keeps its state; the next server resumes it.
        (Trigger::Release, _) => state,
        (Trigger::Suspend, S::Unspecified | S::Preparing | S::Running | S::Pausing) => S::Paused,
        (Trigger::Suspend, _) => return Err(Refusal::NotNow),
        (Trigger::Requeue, S::Unspecified | S::Preparing | S::Running) => S::Queued,
        (Trigger::Requeue, _) => return Err(Refusal::NotNow),
        // An acknowledged cancel wins over a success that comes later.
        (Trigger::Finish(_), S::Cancelling) => S::Cancelled,
        (Trigger::Finish(Outcome::Succeeded), _) => S::Succeeded,
        (Trigger::Finish(Outcome::Failed), _) => S::Failed,
        (Trigger::Finish(Outcome::Cancelled), _) => S::Cancelled,
    })
}

/// Moves a training to its next state; one that ends as cancelled gets its end time and reason.
///
/// # Errors
/// A training that has ended, or whose state does not accept the trigger.
pub(super) fn apply(training: &mut v1::Training, trigger: Trigger) -> Result<(), Error> {
    let refused = (training.name.as_str(), training.state());
    match next(training.state(), trigger) {
        Ok(state) => {
            if state == TrainingState::Cancelled {
                training.set_stop_reason(StopReason::UserStop);
                training.end_time = Some(SystemTime::now().into());
            }
            if !matches!(trigger, Trigger::UpdateSpec) {
                // A training that has not ended has one only while it waits for disk space.
                training.failure = None;
            }
            training.set_state(state);
            Ok(())
        }
        Err(Refusal::Ended) => Err(Error::AlreadyEnded {
            name: refused.0.to_owned(),
            state: refused.1,
        }),
        Err(Refusal::NotNow) => Err(Error::NotNow {
            name: refused.0.to_owned(),
            state: refused.1,
            action: match trigger {
                Trigger::Stop { .. } => "stopped",
                Trigger::Pause => "paused",
                Trigger::Resume => "resumed",
                Trigger::Cancel => "cancelled",
                Trigger::UpdateSpec => "updated",
                Trigger::Prepare | Trigger::Train => "started",
                Trigger::Release | Trigger::Suspend | Trigger::Requeue => "queued",
                Trigger::Finish(_) => "finished",
            },
        }),
    }
}

/// Returns the signal that a process needs for a request recorded before it could be delivered.
pub(super) fn signal(state: TrainingState) -> ControlSignal {
    match state {
        TrainingState::Pausing => ControlSignal::Pause,
        TrainingState::Stopping => ControlSignal::Stop,
        TrainingState::Cancelling => ControlSignal::Cancel,
        TrainingState::Unspecified
        | TrainingState::Queued
        | TrainingState::Preparing
        | TrainingState::Running
        | TrainingState::Paused
        | TrainingState::Succeeded
        | TrainingState::Failed
        | TrainingState::Cancelled => ControlSignal::Continue,
    }
}

/// Returns whether a training without a process is to be ended, because it was asked to end.
pub(super) fn is_ending(state: TrainingState) -> bool {
    matches!(state, TrainingState::Stopping | TrainingState::Cancelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: [TrainingState; 8] = [
        TrainingState::Unspecified,
        TrainingState::Queued,
        TrainingState::Preparing,
        TrainingState::Running,
        TrainingState::Pausing,
        TrainingState::Paused,
        TrainingState::Stopping,
        TrainingState::Cancelling,
    ];
    const ENDED: [TrainingState; 3] = [
        TrainingState::Succeeded,
        TrainingState::Failed,
        TrainingState::Cancelled,
    ];

    type Next = Result<TrainingState, Refusal>;
    const UNSPEC: Next = Ok(TrainingState::Unspecified);
    const QUEUED: Next = Ok(TrainingState::Queued);
    const PREPAR: Next = Ok(TrainingState::Preparing);
    const RUNNIN: Next = Ok(TrainingState::Running);
    const PAUSIN: Next = Ok(TrainingState::Pausing);
    const PAUSED: Next = Ok(TrainingState::Paused);
    const STOPPI: Next = Ok(TrainingState::Stopping);
    const CANCEL: Next = Ok(TrainingState::Cancelling);
    const SUCCES: Next = Ok(TrainingState::Succeeded);
    const FAILED: Next = Ok(TrainingState::Failed);
    const ENDS_C: Next = Ok(TrainingState::Cancelled);
    const NO_NOW: Next = Err(Refusal::NotNow);

    /// The next state by trigger, for each state of [`LIVE`] in its order.
    #[rustfmt::skip]
    const TABLE: [(Trigger, [Next; 8]); 14] = [
        (Trigger::Stop { has_best: false },
            [STOPPI, ENDS_C, STOPPI, STOPPI, STOPPI, ENDS_C, STOPPI, CANCEL]),
        (Trigger::Stop { has_best: true },
            [STOPPI, STOPPI, STOPPI, STOPPI, STOPPI, STOPPI, STOPPI, CANCEL]),
        (Trigger::Pause,
            [PAUSIN, PAUSED, PAUSIN, PAUSIN, PAUSIN, PAUSED, NO_NOW, NO_NOW]),
        (Trigger::Resume,
            [UNSPEC, QUEUED, PREPAR, RUNNIN, NO_NOW, QUEUED, NO_NOW, NO_NOW]),
        (Trigger::Cancel,
            [CANCEL, ENDS_C, CANCEL, CANCEL, CANCEL, ENDS_C, CANCEL, CANCEL]),
        (Trigger::UpdateSpec,
            [UNSPEC, QUEUED, PREPAR, RUNNIN, PAUSIN, PAUSED, STOPPI, CANCEL]),
        (Trigger::Prepare,
            [NO_NOW, PREPAR, NO_NOW, NO_NOW, NO_NOW, NO_NOW, NO_NOW, NO_NOW]),
        (Trigger::Train,
            [UNSPEC, QUEUED, RUNNIN, RUNNIN, PAUSIN, PAUSED, STOPPI, CANCEL]),
        (Trigger::Release,
            [UNSPEC, QUEUED, PREPAR, RUNNIN, PAUSED, PAUSED, STOPPI, CANCEL]),
        (Trigger::Suspend,
            [PAUSED, NO_NOW, PAUSED, PAUSED, PAUSED, NO_NOW, NO_NOW, NO_NOW]),
        (Trigger::Requeue,
            [QUEUED, NO_NOW, QUEUED, QUEUED, PAUSED, NO_NOW, NO_NOW, NO_NOW]),
        (Trigger::Finish(Outcome::Succeeded),
            [SUCCES, SUCCES, SUCCES, SUCCES, SUCCES, SUCCES, SUCCES, ENDS_C]),
        (Trigger::Finish(Outcome::Failed),
            [FAILED, FAILED, FAILED, FAILED, FAILED, FAILED, FAILED, ENDS_C]),
        (Trigger::Finish(Outcome::Cancelled),
            [ENDS_C, ENDS_C, ENDS_C, ENDS_C, ENDS_C, ENDS_C, ENDS_C, ENDS_C]),
    ];

    #[test]
    fn transitions_are_those_of_the_table() {
        for (trigger, expected) in TABLE {
            assert_eq!(
                LIVE.map(|state| next(state, trigger)),
                expected,
                "{trigger:?}"
            );
            for state in ENDED {
                assert_eq!(next(state, trigger), Err(Refusal::Ended), "{trigger:?}");
            }
        }
    }

    #[test]
    fn a_refusal_leaves_the_training_as_it_is() {
        let mut training = v1::Training::default();
        training.set_state(TrainingState::Stopping);
        let before = training.clone();
        let refused = apply(&mut training, Trigger::Pause);
        assert!(matches!(refused, Err(Error::NotNow { .. })), "{refused:?}");
        assert_eq!(training, before);
    }

    #[test]
    fn reason_of_a_pause_disappears_with_the_pause() {
        for trigger in [
            Trigger::Resume,
            Trigger::Pause,
            Trigger::Cancel,
            Trigger::Stop { has_best: true },
        ] {
            let mut training = v1::Training::default();
            training.set_state(TrainingState::Running);
            apply(&mut training, Trigger::Suspend).unwrap();
            assert_eq!(training.state(), TrainingState::Paused);
            training.failure = Some(v1::Failure::default());
            apply(&mut training, Trigger::UpdateSpec).unwrap();
            assert!(training.failure.is_some());
            apply(&mut training, trigger).unwrap();
            assert_eq!(training.failure, None, "{trigger:?}");
        }
    }

    #[test]
    fn a_cancelled_training_has_a_reason_and_an_end_time() {
        let mut training = v1::Training::default();
        training.set_state(TrainingState::Queued);
        apply(&mut training, Trigger::Cancel).unwrap();
        assert_eq!(training.state(), TrainingState::Cancelled);
        assert_eq!(training.stop_reason(), StopReason::UserStop);
        assert!(training.end_time.is_some());
    }
}
