//! A version's network as the engine computes with it.
//!
//! In 16 bits a network answers up to four times faster, and not quite the same. How much it differs from libtorch's f32 is measured on drawn faces when the
//! version is loaded; a network that differs by more than [`MOST_DIFFERENCE`] is served in the next format instead, and the log says so.

use std::collections::{BTreeMap, VecDeque};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::{
    imaging::{Preprocessor, normalise_into},
    model::{
        self, checkpoint,
        fused::{self, Threads},
        precision::{Precision, PrecisionPolicy},
        resnet18::{Output, PendingOutputs, ResNet18, TrainableFrom},
        slices::values_mut,
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

/// A network that answers.
#[derive(Debug)]
pub(super) struct LoadedModel {
    network: Network,
    pub(super) rounding: PrecisionReport,
}

/// What a network computes in, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionReport {
    /// The number format.
    pub precision: Precision,
    /// Mean change in years against libtorch's f32 on the drawn faces.
    pub difference: f64,
}

#[derive(Debug)]
enum Network {
    Own(Box<fused::Network>, fused::Workspace),
    Libtorch(Box<ResNet18>, Staging),
}

/// A batch whose forward pass has begun.
#[derive(Debug)]
pub(super) enum PendingForward {
    Done(Vec<Output>),
    /// On a device that computes by itself.
    Pending(PendingOutputs),
}

impl PendingForward {
    /// Waits for the outputs.
    ///
    /// # Errors
    /// What the device failed with.
    pub(super) fn finish(self) -> Result<Vec<Output>, model::Error> {
        match self {
            PendingForward::Done(outputs) => Ok(outputs),
            PendingForward::Pending(pending) => pending.finish(),
        }
    }
}

/// Where batches are put together before the device gets them. For a GPU the memory is pinned, so that it copies by itself, and there are two of them: the
/// next batch is put together and copied while the GPU computes the one before.
#[derive(Debug)]
struct Staging {
    device: Device,
    /// `[N, 3, S, S]` of f32, the one that was used last behind.
    slots: VecDeque<Tensor>,
}

impl Staging {
    fn new(device: Device) -> Self {
        Staging {
            device,
            slots: VecDeque::new(),
        }
    }

    /// The images on the device, in one tensor.
    ///
    /// # Errors
    /// A lack of memory.
    fn gather(
        &mut self,
        images: &[&[f32]],
        side: i64,
        threads: &Threads,
    ) -> Result<Tensor, model::Error> {
        let count = images.len() as i64;
        let slots = if self.device == Device::Cpu { 1 } else { 2 };
        let free = (self.slots.len() == slots).then(|| self.slots.pop_front());
        let mut slot = match free.flatten() {
            Some(slot) if slot.size()[0] >= count => slot,
            _ => self.slot(count, side)?,
        };
        let length = 3 * (side * side) as usize;
        let values = &mut values_mut(&mut slot)[..images.len() * length];
        threads.for_each_run(values, length, |number, values| {
            values.copy_from_slice(images[number]);
        });
        let batch = slot.f_narrow(0, 0, count)?;
        // On a processor it is the slot itself, with which the network has computed before this thread goes on.
        let batch = batch.f_to_device_(self.device, Kind::Float, true, false)?;
        self.slots.push_back(slot);
        Ok(batch)
    }

    fn slot(&self, count: i64, side: i64) -> Result<Tensor, model::Error> {
        let slot = Tensor::f_zeros([count, 3, side, side], (Kind::Float, Device::Cpu))?;
        if self.device == Device::Cpu {
            return Ok(slot);
        }
        Ok(slot.f_pin_memory(self.device)?)
    }
}

impl LoadedModel {
    /// Reads the weights, chooses the number format, and computes once what the first prediction would have to allocate. Weights whose rounding is `known` are not
    /// compared once more, which is half of the work.
    ///
    /// # Errors
    /// Weights that cannot be read or do not compute.
    pub(super) fn read(
        model: &ServedModel,
        device: Device,
        policy: PrecisionPolicy,
        known: Option<PrecisionReport>,
        threads: &Threads,
    ) -> Result<Self, model::Error> {
        let state = checkpoint::read_model(&model.weights, &model.sha256)?;
        if let Some(rounding) = known
            && let Some(network) = Network::of_format(&state, device, rounding.precision)?
        {
            let mut again = LoadedModel { network, rounding };
            let blank = vec![0.0; model.input.values()];
            again.forward(&[blank], &[], model, threads)?;
            return Ok(again);
        }
        let mut exact = LoadedModel {
            network: Network::libtorch(&state, device, Precision::F32)?,
            rounding: PrecisionReport {
                precision: Precision::F32,
                difference: 0.0,
            },
        };
        let faces = golden_faces(model);
        let expected = exact.forward(&faces, &[], model, threads)?;
        let formats = match policy {
            PrecisionPolicy::Auto => Precision::candidates(device),
            PrecisionPolicy::Only(precision) => vec![precision],
        };
        for precision in formats {
            let Some(network) = Network::of_format(&state, device, precision)? else {
                if precision == Precision::F32 {
                    break;
                }
                let error = model::Error::Precision {
                    precision,
                    reason: "the network's numbers are too large for it",
                };
                if policy != PrecisionPolicy::Auto {
                    return Err(error);
                }
                tracing::warn!(model = model.name, %error, "trying the next number format");
                continue;
            };
            let rounding = PrecisionReport {
                precision,
                difference: 0.0,
            };
            let mut rounded = LoadedModel { network, rounding };
            let found = rounded.forward(&faces, &[], model, threads)?;
            let change = |(found, expected): (&Output, &Output)| {
                f64::from((found.value - expected.value).abs())
            };
            let changes = found.iter().zip(&expected).map(change).sum::<f64>();
            let difference = model.label.scale.abs() * changes / expected.len() as f64;
            rounded.rounding.difference = difference;
            let is_far = difference.is_nan() || difference > MOST_DIFFERENCE;
            if is_far {
                tracing::warn!(
                    model = model.name,
                    precision = precision.name(),
                    difference,
                    limit = MOST_DIFFERENCE,
                    "this number format changes the ages of drawn faces by too much"
                );
            }
            if !is_far || policy != PrecisionPolicy::Auto {
                return Ok(rounded);
            }
        }
        Ok(exact)
    }

    /// What the same weights would be compared for once more; nothing where libtorch computes, in whose permit another network might be made.
    pub(super) fn known(&self) -> Option<PrecisionReport> {
        match self.network {
            Network::Own(..) => Some(self.rounding),
            Network::Libtorch(..) => None,
        }
    }

    /// What the network says of normalised images `[3, S, S]` each, label scale not applied; with what each permit adds to it for those images whose `explain`
    /// is there and true.
    ///
    /// # Errors
    /// A lack of memory, or whatever else libtorch refuses.
    pub(super) fn forward<P: AsRef<[f32]>>(
        &mut self,
        images: &[P],
        explain: &[bool],
        model: &ServedModel,
        threads: &Threads,
    ) -> Result<Vec<Output>, model::Error> {
        self.begin(images, explain, model, threads, &mut || ())?
            .finish()
    }

    /// The same for a device that computes by itself: calls `before` when it has the images, before it is given anything to compute. The batch that was begun
    /// before this one is to be finished there, since what is read from a device waits for all that it was given, and two batches may be on it at most.
    ///
    /// # Errors
    /// As [`LoadedModel::forward`].
    pub(super) fn begin<P: AsRef<[f32]>>(
        &mut self,
        images: &[P],
        explain: &[bool],
        model: &ServedModel,
        threads: &Threads,
        before: &mut dyn FnMut(),
    ) -> Result<PendingForward, model::Error> {
        let side = model.input.size;
        let images: Vec<&[f32]> = images.iter().map(AsRef::as_ref).collect();
        match &mut self.network {
            Network::Own(network, workspace) => {
                threads.pin_caller();
                before();
                let outputs =
                    network.forward(&images, explain, side as usize, threads, workspace)?;
                Ok(PendingForward::Done(outputs))
            }
            Network::Libtorch(network, staging) => tch::no_grad(|| {
                // Libtorch's threads, too, may run where the one may that starts them.
                threads.unpin_caller();
                let images = staging.gather(&images, i64::from(side), threads)?;
                before();
                let pending = network.forward_async(&images, explain)?;
                Ok(PendingForward::Pending(pending))
            }),
        }
    }
}

impl Network {
    /// A network that computes in the format; `None` where the format cannot hold its numbers, or where f32 is libtorch's.
    fn of_format(
        state: &BTreeMap<String, Tensor>,
        device: Device,
        precision: Precision,
    ) -> Result<Option<Self>, model::Error> {
        if device == Device::Cpu
            && let Some(network) = fused::Network::new(precision, state, 4)?
        {
            let workspace = fused::Workspace::new();
            return Ok(Some(Network::Own(Box::new(network), workspace)));
        }
        match precision {
            Precision::F16 | Precision::F32 | Precision::F16Weights => Ok(None),
            Precision::Bf16 => Network::libtorch(state, device, Precision::Bf16).map(Some),
        }
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
        let network =
            ResNet18::new(&state, TrainableFrom::HEAD, precision)?.without_fused_kernels();
        Ok(Network::Libtorch(Box::new(network), Staging::new(device)))
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
