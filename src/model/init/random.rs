//! Random initial weights.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::model::{Error, layout::layout};

/// Random weights with torchvision's distributions: He et al. (2015, arXiv:1502.01852, equation 10)
/// with the fan out for convolutions, ones and zeros for BatchNorms, and a uniform head within
/// 1/√512 as in `torch.nn.Linear`.
pub(super) fn weights(seed: u64) -> Result<BTreeMap<String, Tensor>, Error> {
    // libtorch's seed is signed; all bits are used.
    tch::manual_seed(seed.cast_signed());
    let mut state = BTreeMap::new();
    for (name, shape) in layout(1) {
        let sides: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        let float = (Kind::Float, Device::Cpu);
        let head_bound = 1.0 / (512f64).sqrt();
        let tensor = match name.rsplit('.').next() {
            Some("num_batches_tracked") => Tensor::f_zeros([0; 0], (Kind::Int64, Device::Cpu))?,
            _ if name.starts_with("fc.") => {
                Tensor::f_zeros(&sides, float)?.f_uniform_(-head_bound, head_bound)?
            }
            Some("weight") if sides.len() == 4 => {
                let fan_out = (shape[0] * shape[2] * shape[3]) as f64;
                Tensor::f_randn(&sides, float)?.f_mul_scalar((2.0 / fan_out).sqrt())?
            }
            Some("weight" | "running_var") => Tensor::f_ones(&sides, float)?,
            _ => Tensor::f_zeros(&sides, float)?,
        };
        state.insert(name, tensor);
    }
    Ok(state)
}
