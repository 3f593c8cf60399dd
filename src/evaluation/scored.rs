//! True and predicted ages, and sums of their errors.

/// True and predicted age of one image in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    /// The true age.
    pub age: f64,
    pub predicted: f64,
}

impl Scored {
    /// Prediction minus true age, in years.
    pub(crate) fn error(self) -> f64 {
        self.predicted - self.age
    }
}

/// Sums of the errors of a set of images, for the mean squared and the mean absolute error.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ErrorSums {
    images: u64,
    squared: f64,
    absolute: f64,
}

impl ErrorSums {
    pub(crate) fn add(&mut self, scored: Scored) {
        self.images += 1;
        self.squared += scored.error().powi(2);
        self.absolute += scored.error().abs();
    }

    pub(crate) fn images(&self) -> u64 {
        self.images
    }

    /// Mean squared error in squared years; NaN without an image.
    pub(crate) fn mse(&self) -> f64 {
        self.squared / self.images as f64
    }

    /// Mean absolute error in years; NaN without an image.
    pub(crate) fn mae(&self) -> f64 {
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

/// A predicted image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Image<'a> {
    /// Name relative to the dataset.
    pub name: &'a str,
    /// Labels as (name, value).
    pub labels: Vec<(&'a str, &'a str)>,
    pub scored: Scored,
}

/// The mean; NaN without values.
pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
