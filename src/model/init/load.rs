//! Loads or generates initial weights.

use std::{collections::BTreeMap, path::PathBuf};

use tch::Tensor;

use super::{
    file::{self, FILLABLE},
    random,
};
use crate::model::{
    Error,
    checkpoint::LabelScale,
    layout::layout,
    starter, tensors,
    training_images::TrainingImages,
    weights::{HubOptions, StateDict, check_shapes, check_values, imagenet, without_head},
};

/// The kind of initial weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Init {
    /// torchvision's ImageNet weights, with a new head.
    ImageNet,
    /// A `.pth` or `.safetensors` file; its head is kept when it has one output.
    Path {
        path: String,
        /// The place of the network within the file, such as `model_ema`; empty if it has only one
        /// network.
        key: String,
        /// The model version that the file belongs to; empty for any other file.
        version: String,
    },
    /// Random weights.
    Random,
    /// The built-in face model, with its head.
    Starter,
}

/// Places of ImageNet weights.
#[derive(Debug, Clone)]
pub(crate) struct WeightSources {
    /// Directories, searched first, in order.
    pub directories: Vec<PathBuf>,
    /// The hub, the last resort.
    pub hub: HubOptions,
    /// The artifact store of the server, which has the records of training images of its models.
    pub artifacts: Option<PathBuf>,
}

/// Weights on the CPU, and their origin.
#[derive(Debug)]
pub(crate) struct InitialWeights {
    /// All entries of the layout, in f32; counters in i64.
    pub state: BTreeMap<String, Tensor>,
    /// The file with its SHA-256, or the seed.
    pub source: String,
    /// The images that they were trained on; `None` if these are unknown. Those of ImageNet, which
    /// has no ages, are not included.
    pub training_images: Option<TrainingImages>,
    /// True if the head is that of an age model.
    pub predicts_ages: bool,
}

/// Loads or generates the weights.
///
/// # Errors
/// The file is missing, damaged or of another network, or the hub cannot be reached.
pub(crate) fn load(
    init: &Init,
    seed: u64,
    sources: &WeightSources,
) -> Result<InitialWeights, Error> {
    let mut state = random::weights(seed)?;
    let mut training_images = Some(TrainingImages::default());
    let mut predicts_ages = false;
    let source = match init {
        Init::Random => format!("random weights of seed {seed}"),
        Init::Path { path, key, version } => {
            let (found, file, provenance) = file::read(path, key)?;
            fill(&mut state, found)?;
            if let Some(description) = file.description {
                in_years(&mut state, description.label)?;
                predicts_ages = true;
            }
            let images = provenance.training_images(sources.artifacts.as_deref());
            training_images = images.map_err(|reason| {
                tracing::warn!(path, reason, "the images that the initial weights were trained on are unknown; evaluations cannot count them");
            }).ok();
            source_of(version, &file.source)
        }
        Init::ImageNet => {
            let (found, source) = imagenet(&sources.directories, &sources.hub)?;
            fill(&mut state, without_head(found))?;
            format!(
                "{}: {} (SHA-256 {})",
                source.description,
                source.path.display(),
                source.sha256
            )
        }
        Init::Starter => {
            state = tensors::exact(&starter::state()?)?;
            training_images = Some(starter::training_images()?);
            predicts_ages = true;
            format!("the built-in starter (SHA-256 {})", starter::sha256())
        }
    };
    Ok(InitialWeights {
        state,
        source,
        training_images,
        predicts_ages,
    })
}

/// Origin of weights from a file, with the model version that it belongs to, if any.
pub(crate) fn source_of(version: &str, file: &str) -> String {
    match version {
        "" => file.to_owned(),
        version => format!("{version}: {file}"),
    }
}

/// Rescales a head with outputs on this scale, so that it predicts years.
fn in_years(state: &mut BTreeMap<String, Tensor>, label: LabelScale) -> Result<(), Error> {
    let LabelScale { scale, offset } = label;
    if (scale, offset) == (1.0, 0.0) {
        return Ok(());
    }
    let weight = state["fc.weight"].f_mul_scalar(scale)?;
    let bias = state["fc.bias"].f_mul_scalar(scale)?.f_add_scalar(offset)?;
    state.insert("fc.weight".to_owned(), weight);
    state.insert("fc.bias".to_owned(), bias);
    Ok(())
}

/// Replaces random weights with those of a file.
fn fill(state: &mut BTreeMap<String, Tensor>, found: StateDict) -> Result<(), Error> {
    check_shapes(&found, &layout(1), &FILLABLE)?;
    check_values(&found)?;
    for (name, data) in &found {
        state.insert(name.clone(), tensors::tensor(data)?);
    }
    Ok(())
}
