//! Decision on the next step of a training.

/// Continuation of the training, decided before each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Continue,
    OutOfTime,
    Pause,
    Stop,
    Cancel,
}

impl Decision {
    pub(super) fn code(self) -> u8 {
        match self {
            Decision::Continue => 0,
            Decision::OutOfTime => 1,
            Decision::Pause => 2,
            Decision::Stop => 3,
            Decision::Cancel => 4,
        }
    }

    /// Reverts [`Decision::code`]. A code of another program, which cannot join, cancels.
    pub(super) fn of_code(code: u8) -> Self {
        match code {
            0 => Decision::Continue,
            1 => Decision::OutOfTime,
            2 => Decision::Pause,
            3 => Decision::Stop,
            _ => Decision::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Decision;

    #[test]
    fn codes_return_the_decision() {
        for decision in [
            Decision::Continue,
            Decision::OutOfTime,
            Decision::Pause,
            Decision::Stop,
            Decision::Cancel,
        ] {
            assert_eq!(Decision::of_code(decision.code()), decision);
        }
    }
}
