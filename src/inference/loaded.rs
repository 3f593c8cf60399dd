//! A version's network as the engine computes with it.
//!
//! In 16 bits a network answers up to four times faster, and not quite the same. How much it differs from f32 is measured on drawn faces when the
//! version is loaded; a network that differs by more than [`MOST_DIFFERENCE`] is served in f32 instead, and the log says so.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::{
    imaging::{Preprocessor, normalise_into},
    model::{
        self, checkpoint,
        device::Precision,
        fused::{self, Threads},
        resnet18::{Output, ResNet18, Trained},
    },
    synth::Person,
};

use super::ServedModel;

/// Ages of the drawn faces.
const GOLDEN_AGES: [u8; 8] = [2, 9, 17, 25, 34, 46, 61, 80];
/// Their side in pixels.
const GOLDEN_SIDE: u32 = 128;
/// Mean change in years by the number format that is accepted.
const MOST_DIFFERENCE: f64 = 0.1;

/// Which number format the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The fastest that changes the ages by little enough.
    Fastest,
    /// This one, whatever it changes.
    Only(Precision),
}

/// A network that answers.
#[derive(Debug)]
pub(super) struct Loaded {
    network: Network,
    /// Its number format.
    pub(super) precision: Precision,
    /// Mean change in years against f32 on the drawn faces; zero for f32.
    pub(super) difference: f64,
}

#[derive(Debug)]
enum Network {
    Own(Box<fused::Network>, fused::Workspace),
    Libtorch(Box<ResNet18>, Device),
}

impl Loaded {
    /// Reads the weights, chooses the number format, and computes once what the first prediction would have to allocate.
    ///
    /// # Errors
    /// Weights that cannot be read or do not compute.
    pub(super) fn read(
        model: &ServedModel,
        device: Device,
        wanted: Wanted,
        threads: &Threads,
    ) -> Result<Self, model::Error> {
        let state = checkpoint::read_model(&model.weights, &model.sha256)?;
        let exact = || {
            let network = Network::libtorch(&state, device, Precision::F32)?;
            Ok::<_, model::Error>(Loaded {
                network,
                precision: Precision::F32,
                difference: 0.0,
            })
        };
        let precision = match wanted {
            Wanted::Fastest => Precision::fastest(device),
            Wanted::Only(precision) => precision,
        };
        let faces = golden_faces(model);
        let mut exact = exact()?;
        let expected = exact.forward(&faces, &[], model, threads)?;
        if precision == Precision::F32 {
            return Ok(exact);
        }
        let mut rounded = Loaded {
            network: Network::bf16(&state, device)?,
            precision,
            difference: 0.0,
        };
        let found = rounded.forward(&faces, &[], model, threads)?;
        let change =
            |(found, expected): (&Output, &Output)| f64::from((found.value - expected.value).abs());
        let changes = found.iter().zip(&expected).map(change);
        rounded.difference = model.label.scale.abs() * changes.sum::<f64>() / expected.len() as f64;
        let is_far = rounded.difference.is_nan() || rounded.difference > MOST_DIFFERENCE;
        if is_far {
            tracing::warn!(
                model = model.name,
                difference = rounded.difference,
                limit = MOST_DIFFERENCE,
                "bf16 changes the ages of drawn faces by too much"
            );
        }
        Ok(if is_far && wanted == Wanted::Fastest {
            exact
        } else {
            rounded
        })
    }

    /// What the network says of normalised images `[3, S, S]` each, label scale not applied; with what each place adds to it for those images whose `explain`
    /// is there and true.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub(super) fn forward<P: AsRef<[f32]>>(
        &mut self,
        images: &[P],
        explain: &[bool],
        model: &ServedModel,
        threads: &Threads,
    ) -> Result<Vec<Output>, model::Error> {
        let side = model.input.size;
        match &mut self.network {
            Network::Own(network, workspace) => {
                let images: Vec<&[f32]> = images.iter().map(AsRef::as_ref).collect();
                Ok(network.forward(&images, explain, side as usize, threads, workspace))
            }
            Network::Libtorch(network, device) => {
                let mut pixels = Vec::with_capacity(images.len() * model.input.values());
                for image in images {
                    pixels.extend_from_slice(image.as_ref());
                }
                let (count, side) = (images.len() as i64, i64::from(side));
                tch::no_grad(|| {
                    let images = Tensor::f_from_slice(&pixels)?.f_view([count, 3, side, side])?;
                    network.forward_explained(&images.f_to_device(*device)?, explain)
                })
            }
        }
    }
}

impl Network {
    fn bf16(state: &BTreeMap<String, Tensor>, device: Device) -> Result<Self, model::Error> {
        if device == Device::Cpu
            && let Some(network) = fused::Network::new(state, 4)?
        {
            return Ok(Network::Own(Box::new(network), fused::Workspace::new()));
        }
        Network::libtorch(state, device, Precision::Bf16)
    }

    fn libtorch(
        state: &BTreeMap<String, Tensor>,
        device: Device,
        precision: Precision,
    ) -> Result<Self, model::Error> {
        let moved = state.iter().map(|(name, tensor)| {
            let tensor = tensor.f_to_device(device)?;
            Ok((name.clone(), tensor))
        });
        let state = moved.collect::<Result<BTreeMap<_, _>, tch::TchError>>()?;
        // Nothing is trained here; with all but the head frozen, every BatchNorm can be folded.
        let network = ResNet18::new(&state, Trained::HEAD, precision)?;
        Ok(Network::Libtorch(Box::new(network), device))
    }
}

/// The drawn faces as the network takes them.
fn golden_faces(model: &ServedModel) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut preprocessor = Preprocessor::new();
    let mut faces = Vec::new();
    for age in GOLDEN_AGES {
        let person = Person::sample(age, &mut rng);
        match person.draw(GOLDEN_SIDE, &mut rng) {
            Ok(face) => {
                let mut pixels = vec![0.0; model.input.values()];
                let resized = preprocessor.resize(face, model.input.size);
                normalise_into(&resized, &model.input, &mut pixels);
                faces.push(pixels);
            }
            Err(error) => {
                tracing::error!(%error, "failed to draw a face to compare number formats on")
            }
        }
    }
    faces
}
