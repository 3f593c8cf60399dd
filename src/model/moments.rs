//! Mean and variance of a sample from those of its parts.

/// Count, mean and sum of squared deviations of two samples combined (Chan, Golub and LeVeque,
/// 1983, Algorithms for computing the sample variance, equation 1.5).
pub(crate) fn joined(a: (f64, f64, f64), b: (f64, f64, f64)) -> (f64, f64, f64) {
    let count = a.0 + b.0;
    let apart = b.1 - a.1;
    let mean = a.1 + apart * b.0 / count;
    let squares = a.2 + b.2 + apart * apart * a.0 * b.0 / count;
    (count, mean, squares)
}

#[cfg(test)]
mod tests {
    use super::joined;

    /// 1, 2, 3 and 7, 9 have means 2 and 8; all five have mean 4.4 and Σ (x - mean)² 47.2.
    #[test]
    fn parts_give_the_moments_of_the_whole() {
        let (count, mean, squares) = joined((3.0, 2.0, 2.0), (2.0, 8.0, 2.0));
        assert_eq!(count, 5.0);
        assert!((mean - 4.4).abs() < 1e-12);
        assert!((squares - 47.2).abs() < 1e-12);
    }
}
