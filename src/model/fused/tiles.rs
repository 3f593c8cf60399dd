//! Sizes of Winograd's tiles.

/// Elements of a transformed tile or filter.
pub(super) const ELEMENTS: usize = 16;
/// Taps of a 3×3 filter.
pub(super) const TAPS: usize = 9;
