//! Moving average of the trained tensors.

use tch::Tensor;

use crate::model::Error;

/// Exponential moving average of trained tensors (Polyak and Juditsky, 1992), with the warm-up of
/// TensorFlow's `ExponentialMovingAverage`.
#[derive(Debug)]
pub(crate) struct MovingAverage {
    decay: f64,
    updates: u64,
    /// The flat parameters, then the running statistics of trained layers in order of their names.
    tensors: Vec<Tensor>,
}

impl MovingAverage {
    /// Starts with the current values.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn new(decay: f64, trained: &[Tensor]) -> Result<Self, Error> {
        let copies = trained
            .iter()
            .map(|tensor| Ok(tensor.f_detach()?.f_add_scalar(0)?));
        Ok(MovingAverage {
            decay,
            updates: 0,
            tensors: copies.collect::<Result<_, Error>>()?,
        })
    }

    /// Adds the values after a step.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn update(&mut self, trained: &[Tensor]) -> Result<(), Error> {
        let updates = self.updates as f64;
        let decay = self.decay.min((1.0 + updates) / (10.0 + updates));
        self.updates += 1;
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(trained) {
                average.f_lerp_(tensor, 1.0 - decay).map(drop)?;
            }
            Ok(())
        })
    }

    /// Exchanges the average with the trained tensors; a second call reverts it.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn exchange(&mut self, trained: &mut [Tensor]) -> Result<(), Error> {
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(trained) {
                let copy = tensor.f_detach()?.f_add_scalar(0)?;
                tensor.f_copy_(average)?;
                average.f_copy_(&copy)?;
            }
            Ok(())
        })
    }

    pub(crate) fn updates(&self) -> u64 {
        self.updates
    }

    pub(crate) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Restores the state of an earlier process.
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub(crate) fn restore(&mut self, tensors: &[Tensor], updates: u64) -> Result<(), Error> {
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(tensors) {
                average.f_copy_(tensor)?;
            }
            Ok::<_, Error>(())
        })?;
        self.updates = updates;
        Ok(())
    }
}
