//! The choices of initial weights.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use super::{
    Error,
    resnet18::layout,
    starter,
    weights::{self, DType, HubOptions, Mismatch, StateDict, check_shapes, without_head},
};

/// Which weights to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// torchvision's ImageNet weights, with a new head.
    ImageNet,
    /// A `.pth` or `.safetensors` file; its head is kept when it has one output.
    Path(String),
    /// Random weights.
    Random,
    /// The face model that is part of this program, with its head.
    Starter,
}

/// Where ImageNet's weights are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Folders that may hold the file, in order.
    pub folders: Vec<PathBuf>,
    /// The hub, asked last.
    pub hub: HubOptions,
}

/// Weights on the CPU and where they come from.
#[derive(Debug)]
pub struct Loaded {
    /// Every entry of the layout, in f32; counts in i64.
    pub state: BTreeMap<String, Tensor>,
    /// Which file with which SHA-256, or which seed.
    pub source: String,
}

/// Loads or makes the weights.
///
/// # Errors
/// A file that is missing, damaged or of another network, or a hub that cannot be reached; the sentence says which file to put where.
pub fn load(init: &Init, seed: u64, sources: &Sources) -> Result<Loaded, Error> {
    let mut state = random(seed)?;
    let source = match init {
        Init::Random => format!("random weights of seed {seed}"),
        Init::Path(path) => {
            let (found, sha256) = weights::load(Path::new(path))?;
            fill(&mut state, without_head(found))?;
            format!("{path} (SHA-256 {sha256})")
        }
        Init::ImageNet => {
            let (found, source) = weights::imagenet(&sources.folders, &sources.hub)?;
            fill(&mut state, without_head(found))?;
            format!(
                "{}: {} (SHA-256 {})",
                source.description,
                source.path.display(),
                source.sha256
            )
        }
        Init::Starter => {
            state = exact(&starter::state()?)?;
            format!(
                "the starter of this program (SHA-256 {})",
                starter::sha256()
            )
        }
    };
    Ok(Loaded { state, source })
}

/// Whether a file can be used as [`Init::Path`].
///
/// # Errors
/// A file that is missing, damaged or of another network.
pub fn check(path: &Path) -> Result<(), Error> {
    let (found, _) = weights::load(path)?;
    Ok(check_shapes(&without_head(found), &layout(1), &FILLABLE)?)
}

/// A whole network from what a file holds, head included.
///
/// # Errors
/// Other names or shapes than the network's.
pub fn exact(found: &StateDict) -> Result<BTreeMap<String, Tensor>, Error> {
    check_shapes(found, &layout(1), &Mismatch::default())?;
    found
        .iter()
        .map(|(name, data)| Ok((name.clone(), tensor(data)?)))
        .collect()
}

/// Random weights as torchvision makes them: He et al. (2015, arXiv:1502.01852, equation 10) with the fan out for convolutions, ones and zeros for
/// BatchNorms, and a uniform head within 1/√512 as `torch.nn.Linear` has it.
fn random(seed: u64) -> Result<BTreeMap<String, Tensor>, Error> {
    // The bits of the seed, whatever their sign.
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

/// What a file of initial weights may lack.
const FILLABLE: Mismatch = Mismatch {
    counters: true,
    missing_head: true,
};

/// Replaces random weights with those of a file, which may lack the head and the counts.
fn fill(state: &mut BTreeMap<String, Tensor>, found: StateDict) -> Result<(), Error> {
    check_shapes(&found, &layout(1), &FILLABLE)?;
    for (name, data) in &found {
        state.insert(name.clone(), tensor(data)?);
    }
    Ok(())
}

fn tensor(data: &weights::TensorData) -> Result<Tensor, Error> {
    let sides: Vec<i64> = data.shape.iter().map(|side| *side as i64).collect();
    if data.dtype == DType::I64 {
        return Ok(Tensor::f_from_data_size(&data.data, &sides, Kind::Int64)?);
    }
    Ok(Tensor::f_from_slice(&data.to_f32())?.f_view(sides.as_slice())?)
}
