//! The learning rate schedule: a warm-up, then a constant rate, a cosine or reductions at plateaus.

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    /// Schedule after the warm-up.
    pub(super) kind: ScheduleKind,
    /// Epochs, or a part of one, over which the rate rises linearly.
    pub(super) warmup_epochs: f64,
    /// Lowest factor, 0 to 1.
    pub(super) min_factor: f64,
    /// Factor of one reduction by [`ScheduleKind::Plateau`].
    pub(super) plateau_factor: f64,
    /// Validations without improvement that [`ScheduleKind::Plateau`] tolerates.
    pub(super) plateau_patience: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScheduleKind {
    Constant,
    /// Half a cosine wave down to the last step (Loshchilov and Hutter, 2017, arXiv:1608.03983,
    /// equation 5, without restarts).
    Cosine,
    /// Reduces the rate when the metric stops improving.
    Plateau,
}

/// A schedule and its state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scheduler {
    schedule: Schedule,
    plateau: Plateau,
}

/// State of [`ScheduleKind::Plateau`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plateau {
    /// Lowest metric so far; infinite before the first.
    pub(super) best: f64,
    /// Validations since then, or since the last reduction.
    pub(super) waited: u32,
    /// Product of the reductions so far.
    pub(super) factor: f64,
}

impl Scheduler {
    pub(super) fn new(schedule: Schedule) -> Self {
        Scheduler {
            schedule,
            plateau: Plateau {
                best: f64::INFINITY,
                waited: 0,
                factor: 1.0,
            },
        }
    }

    pub(super) fn plateau(&self) -> Plateau {
        self.plateau
    }

    /// Restores the state of an earlier process.
    pub(super) fn restore(&mut self, plateau: Plateau) {
        self.plateau = plateau;
    }

    /// Returns the factor on the learning rate for a step, counted from 0 over all epochs.
    pub(super) fn factor(&self, step: u64, steps_per_epoch: u64, epochs: u32) -> f64 {
        let warmup = (self.schedule.warmup_epochs * steps_per_epoch as f64).round() as u64;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let min = self.schedule.min_factor;
        match self.schedule.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let all = (u64::from(epochs) * steps_per_epoch).saturating_sub(warmup);
                let done = (step - warmup) as f64 / all.max(1) as f64;
                let wave = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                min + (1.0 - min) * wave
            }
            ScheduleKind::Plateau => self.plateau.factor.max(min),
        }
    }

    /// Observes the metric of a validation; lower is better.
    pub(super) fn observe(&mut self, metric: f64) {
        if self.schedule.kind != ScheduleKind::Plateau {
            return;
        }
        if metric < self.plateau.best {
            self.plateau.best = metric;
            self.plateau.waited = 0;
        } else {
            self.plateau.waited += 1;
        }
        if self.plateau.waited > self.schedule.plateau_patience {
            self.plateau.factor *= self.schedule.plateau_factor;
            self.plateau.waited = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANT: Schedule = Schedule {
        kind: ScheduleKind::Constant,
        warmup_epochs: 0.0,
        min_factor: 0.0,
        plateau_factor: 0.5,
        plateau_patience: 1,
    };

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    /// `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=6, eta_min=0.1)` for a rate of 1, after
    /// two steps of warm-up.
    #[test]
    fn cosine_after_a_warm_up_is_that_of_torch() {
        let scheduler = Scheduler::new(Schedule {
            kind: ScheduleKind::Cosine,
            warmup_epochs: 0.5,
            min_factor: 0.1,
            ..CONSTANT
        });
        let found: Vec<f64> = (0..8).map(|step| scheduler.factor(step, 4, 2)).collect();
        close(&found[..2], &[0.5, 1.0]);
        close(
            &found[2..],
            &include!("../../tests/fixtures/schedules/cosine.in"),
        );
    }

    /// `torch.optim.lr_scheduler.ReduceLROnPlateau(factor=0.5, patience=1, threshold=0,
    /// min_lr=0.2)` for a rate of 1.
    #[test]
    fn plateau_is_that_of_torch() {
        let mut scheduler = Scheduler::new(Schedule {
            kind: ScheduleKind::Plateau,
            min_factor: 0.2,
            ..CONSTANT
        });
        let losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6];
        let mut found = Vec::new();
        for loss in losses {
            scheduler.observe(loss);
            found.push(scheduler.factor(0, 4, 20));
        }
        close(
            &found,
            &include!("../../tests/fixtures/schedules/plateau.in"),
        );
    }

    #[test]
    fn constant_rate_stays() {
        let scheduler = Scheduler::new(CONSTANT);
        assert_eq!(scheduler.factor(0, 4, 2), 1.0);
        assert_eq!(scheduler.factor(7, 4, 2), 1.0);
    }
}
