//! Sum of equally long vectors along a fixed binary tree.

use tch::Tensor;

use crate::model::Error;

/// Adds vectors along a binary tree: neighbours first, then their sums. The number of vectors is a
/// power of two, so that the sum over consecutive groups of them, added along the same tree, has
/// the same bits.
#[derive(Debug, Default)]
pub(crate) struct TreeSum {
    /// Sums of complete subtrees by decreasing height.
    subtrees: Vec<(u32, Tensor)>,
    /// Buffers of earlier sums: allocating tens of megabytes in each step is slow.
    spare: Vec<Tensor>,
}

impl TreeSum {
    /// Adds the next vector.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn add(&mut self, vector: &Tensor) -> Result<(), Error> {
        tch::no_grad(|| match self.subtrees.last_mut() {
            Some((height, sum)) if *height == 0 => {
                sum.f_add_(vector).map(drop)?;
                *height = 1;
                self.merge()
            }
            Some(_) | None => {
                let mut copy = match self.spare.pop() {
                    Some(buffer) => buffer,
                    None => vector.f_empty_like()?,
                };
                copy.f_copy_(vector)?;
                self.subtrees.push((0, copy));
                Ok(())
            }
        })
    }

    /// Writes the sum to `out` and starts again.
    ///
    /// # Errors
    /// A failure of libtorch.
    ///
    /// # Panics
    /// If the number of vectors is not a power of two.
    pub(crate) fn finish(&mut self, out: &mut Tensor) -> Result<(), Error> {
        assert_eq!(self.subtrees.len(), 1, "the vectors form one tree");
        if let Some((_, sum)) = self.subtrees.pop() {
            tch::no_grad(|| out.f_copy_(&sum))?;
            self.spare.push(sum);
        }
        Ok(())
    }

    /// Joins the last two subtrees while they are equally high.
    fn merge(&mut self) -> Result<(), Error> {
        while let [.., (left, _), (right, _)] = self.subtrees[..]
            && left == right
            && let Some((_, last)) = self.subtrees.pop()
            && let Some((height, sum)) = self.subtrees.last_mut()
        {
            sum.f_add_(&last).map(drop)?;
            *height += 1;
            self.spare.push(last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In f32, 1 + 2⁻²⁴ rounds to 1, and 2⁻²⁴ + 2⁻²⁴ is exact: only ((a + b) + (c + d)) gives this.
    #[test]
    fn neighbours_are_added_first() {
        let small = 2.0_f32.powi(-24);
        let mut sum = TreeSum::default();
        let mut out = Tensor::from_slice(&[0.0_f32]);
        for _ in 0..2 {
            for value in [1.0, small, small, small] {
                sum.add(&Tensor::from_slice(&[value])).unwrap();
            }
            sum.finish(&mut out).unwrap();
            // One after the other, the sum stays 1.
            assert_eq!(out.double_value(&[0]), 1.0 + 2.0_f64.powi(-23));
        }
        sum.add(&Tensor::from_slice(&[3.0_f32])).unwrap();
        sum.finish(&mut out).unwrap();
        assert_eq!(out.double_value(&[0]), 3.0);
    }

    #[test]
    fn groups_give_the_bits_of_the_whole() {
        let vector = |index: i32| {
            let value = |place: i32| ((index * 31 + place * 7) as f32).sin() * 1e3;
            Tensor::from_slice(&(0..100).map(value).collect::<Vec<f32>>())
        };
        let sum = |vectors: &[Tensor]| {
            let (mut sum, mut out) = (TreeSum::default(), vectors[0].zeros_like());
            for one in vectors {
                sum.add(one).unwrap();
            }
            sum.finish(&mut out).unwrap();
            out
        };
        let vectors: Vec<Tensor> = (0..16).map(vector).collect();
        let whole = Vec::<f32>::try_from(sum(&vectors)).unwrap();
        for size in [1, 2, 4, 8] {
            let groups: Vec<Tensor> = vectors.chunks(size).map(sum).collect();
            assert_eq!(Vec::<f32>::try_from(sum(&groups)).unwrap(), whole, "{size}");
        }
    }
}
