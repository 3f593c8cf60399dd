//! Decisions that depend on rank 0 alone, such as requests of the server and the time, and that all
//! ranks follow at the same step.

use prost::Message;

use crate::{
    proto::{v1::StopReason, worker_v1::UpdateCommand},
    training::{control::ControlSignal, spec::Changes},
};

use super::{decision::Decision, error::Error, link::ControlState, session::Session};

impl Session<'_> {
    /// Returns the decision of this process, which counts on rank 0 only.
    pub(super) fn own_decision(&self, control: &ControlState) -> Decision {
        match control.signal() {
            ControlSignal::Continue if self.clock.is_out_of_time() => Decision::OutOfTime,
            ControlSignal::Continue => Decision::Continue,
            ControlSignal::Pause => Decision::Pause,
            ControlSignal::Stop => Decision::Stop,
            ControlSignal::Cancel | ControlSignal::Kill => Decision::Cancel,
        }
    }

    /// Returns the decision for the next step.
    ///
    /// # Errors
    /// A lost rank.
    pub(super) fn decide(&mut self, control: &ControlState) -> Result<Decision, Error> {
        // The results of the last step contained it.
        if let Some(agreed) = self.agreed.take() {
            return Ok(agreed);
        }
        let code = self
            .ranks
            .broadcast(vec![self.own_decision(control).code()])?;
        Ok(code
            .first()
            .map_or(Decision::Cancel, |code| Decision::of_code(*code)))
    }

    /// Returns the reason not to train another epoch, if any.
    ///
    /// # Errors
    /// A lost rank.
    pub(super) fn agreed_stop_reason(&self) -> Result<Option<StopReason>, Error> {
        let own = self.stop_reason().map_or(0, i32::from);
        let code = self.ranks.broadcast(own.to_le_bytes().to_vec())?;
        let code = <[u8; 4]>::try_from(code.as_slice()).map_or(0, i32::from_le_bytes);
        let reason = StopReason::try_from(code).ok();
        Ok(reason.filter(|reason| *reason != StopReason::Unspecified))
    }

    /// Applies requested changes of the spec; to be called between two epochs.
    ///
    /// # Errors
    /// A lost rank.
    pub(super) fn apply_changes(&mut self, control: &ControlState) -> Result<(), Error> {
        let own = control.take_changes();
        let own = UpdateCommand {
            max_epochs: own.max_epochs,
            patience: own.patience,
            learning_rate: own.learning_rate,
        };
        let agreed = self.ranks.broadcast(own.encode_to_vec())?;
        // Bytes of the same program are always valid.
        let agreed = UpdateCommand::decode(agreed.as_slice()).unwrap_or(own);
        self.change(Changes {
            max_epochs: agreed.max_epochs,
            patience: agreed.patience,
            learning_rate: agreed.learning_rate,
        });
        Ok(())
    }
}
