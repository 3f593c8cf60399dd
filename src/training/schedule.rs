//! The learning rate's course: a warm-up, then constant, a cosine or steps down at a plateau.

/// What a spec says about the course.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// After the warm-up.
    pub course: Course,
    /// Epochs, or parts of one, over which the rate rises in equal steps.
    pub warmup_epochs: f64,
    /// Lowest share of the rate, 0 to 1.
    pub min_factor: f64,
    /// What [`Course::Plateau`] multiplies the rate with.
    pub plateau_factor: f64,
    /// Validations without a better figure that [`Course::Plateau`] bears.
    pub plateau_patience: u32,
}

/// The course after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// As it is.
    Constant,
    /// Half a cosine wave down to the last step (Loshchilov and Hutter, 2017, arXiv:1608.03983, equation 5, without restarts).
    Cosine,
    /// Down by a factor when a figure gets no better.
    Plateau,
}

/// Where a training's schedule stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheduler {
    schedule: Schedule,
    plateau: Plateau,
}

/// What a schedule with plateaus remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plateau {
    /// The lowest figure so far; infinite before the first.
    pub best: f64,
    /// Validations since then or since the last step down.
    pub waited: u32,
    /// Product of the steps down so far.
    pub factor: f64,
}

impl Scheduler {
    /// At the beginning.
    pub fn new(schedule: Schedule) -> Self {
        Scheduler {
            schedule,
            plateau: Plateau {
                best: f64::INFINITY,
                waited: 0,
                factor: 1.0,
            },
        }
    }

    /// What to remember for a later process.
    pub fn plateau(&self) -> Plateau {
        self.plateau
    }

    /// Goes on where another process was.
    pub fn restore(&mut self, plateau: Plateau) {
        self.plateau = plateau;
    }

    /// The factor on the learning rate for a step: `step` counts from 0 over all epochs, of which there are `epochs` with `steps_per_epoch` each.
    pub fn factor(&self, step: u64, steps_per_epoch: u64, epochs: u32) -> f64 {
        let warmup = (self.schedule.warmup_epochs * steps_per_epoch as f64).round() as u64;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let least = self.schedule.min_factor;
        match self.schedule.course {
            Course::Constant => 1.0,
            Course::Cosine => {
                let all = (u64::from(epochs) * steps_per_epoch).saturating_sub(warmup);
                let done = (step - warmup) as f64 / all.max(1) as f64;
                let wave = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
                least + (1.0 - least) * wave
            }
            Course::Plateau => self.plateau.factor.max(least),
        }
    }

    /// Takes the figure of a validation; lower is better.
    pub fn validated(&mut self, figure: f64) {
        if self.schedule.course != Course::Plateau {
            return;
        }
        if figure < self.plateau.best {
            self.plateau.best = figure;
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
        course: Course::Constant,
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

    /// `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=6, eta_min=0.1)` for a rate of 1, behind two steps of warm-up.
    #[test]
    fn cosine_behind_a_warm_up_is_that_of_torch() {
        let scheduler = Scheduler::new(Schedule {
            course: Course::Cosine,
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

    /// `torch.optim.lr_scheduler.ReduceLROnPlateau(factor=0.5, patience=1, threshold=0, min_lr=0.2)` for a rate of 1.
    #[test]
    fn plateau_is_that_of_torch() {
        let mut scheduler = Scheduler::new(Schedule {
            course: Course::Plateau,
            min_factor: 0.2,
            ..CONSTANT
        });
        let figures = [5.0, 4.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6];
        let mut found = Vec::new();
        for figure in figures {
            scheduler.validated(figure);
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
