//! Copies batches to the device.

use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

use crate::model::{self, fused::Threads, slices::values_mut};

/// Buffers in which batches are assembled. A GPU has two in pinned memory, which it reads
/// asynchronously: the next batch is assembled and copied while the GPU computes the previous one.
#[derive(Debug)]
pub(super) struct Staging {
    device: Device,
    /// `[N, 3, S, S]` of f32, the most recently used last.
    buffers: VecDeque<Tensor>,
}

impl Staging {
    pub(super) fn new(device: Device) -> Self {
        Staging {
            device,
            buffers: VecDeque::new(),
        }
    }

    /// Returns the images on the device, as one tensor.
    ///
    /// # Errors
    /// If memory is exhausted.
    #[expect(
        unsafe_code,
        reason = "the threads assemble the batch in place; see model::slices"
    )]
    pub(super) fn gather(
        &mut self,
        images: &[&[f32]],
        side: i64,
        threads: &Threads,
    ) -> Result<Tensor, model::Error> {
        let count = images.len() as i64;
        let buffers = if self.device == Device::Cpu { 1 } else { 2 };
        let free = (self.buffers.len() == buffers).then(|| self.buffers.pop_front());
        let mut buffer = match free.flatten() {
            Some(buffer) if buffer.size()[0] >= count => buffer,
            _ => self.allocate(count, side)?,
        };
        let length = 3 * (side * side) as usize;
        // SAFETY: the earlier batches that share this buffer were computed; a GPU has read its copy
        // by the time the buffer is at the front again.
        let values = unsafe { values_mut(&mut buffer) };
        let values = &mut values[..images.len() * length];
        threads.for_each_run(values, length, |number, values| {
            values.copy_from_slice(images[number]);
        });
        let batch = buffer.f_narrow(0, 0, count)?;
        // On a CPU this is the buffer itself; it is not reused before the forward pass returns.
        let batch = batch.f_to_device_(self.device, Kind::Float, true, false)?;
        self.buffers.push_back(buffer);
        Ok(batch)
    }

    fn allocate(&self, count: i64, side: i64) -> Result<Tensor, model::Error> {
        let buffer = Tensor::f_zeros([count, 3, side, side], (Kind::Float, Device::Cpu))?;
        if self.device == Device::Cpu {
            return Ok(buffer);
        }
        Ok(buffer.f_pin_memory(self.device)?)
    }
}
