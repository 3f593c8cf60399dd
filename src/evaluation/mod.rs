//! How well predictions fit the true ages: one place for the figures of a training's test and of an evaluation by the server.
//!
//! - [`metrics`]: errors over a set of images, by group, and the worst of them.
//! - [`conformal`]: intervals from validation residuals.
//! - [`plots`]: the same to look at.
//!
//! Nothing here knows where predictions come from: training and inference both use it, and it uses neither.

pub mod conformal;
pub mod metrics;
pub mod plots;

/// One image's true age and what the model says, both in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The true age.
    pub age: f64,
    /// The predicted age.
    pub predicted: f64,
}

impl Scored {
    /// Prediction minus true age, in years.
    pub fn error(self) -> f64 {
        self.predicted - self.age
    }
}

/// Mean squared error in squared years, and mean absolute error in years, over all images alike.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ErrorSums {
    images: u64,
    squared: f64,
    absolute: f64,
}

impl ErrorSums {
    /// Adds one image.
    pub fn add(&mut self, scored: Scored) {
        self.images += 1;
        self.squared += scored.error().powi(2);
        self.absolute += scored.error().abs();
    }

    /// Number of images.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Mean squared error in squared years; NaN without an image.
    pub fn mse(&self) -> f64 {
        self.squared / self.images as f64
    }

    /// Mean absolute error in years; NaN without an image.
    pub fn mae(&self) -> f64 {
        self.absolute / self.images as f64
    }
}

impl FromIterator<Scored> for ErrorSums {
    fn from_iter<I: IntoIterator<Item = Scored>>(scored: I) -> Self {
        let mut sums = ErrorSums::default();
        for one in scored {
            sums.add(one);
        }
        sums
    }
}
