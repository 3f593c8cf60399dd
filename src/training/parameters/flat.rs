//! Trained parameters as views of one flat buffer.
//!
//! The optimizers of tch do not expose their state, which an exact resume needs. On a flat f32
//! buffer an optimizer takes a few operations, and saving, the gradient norm and an all-reduce take
//! one each.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::model::{
    Error,
    fused::TrainableLayers,
    precision::Precision,
    resnet18::{TrainableFrom, is_parameter},
};

/// All trained parameters in one buffer `[P]`, in order of their names.
///
/// In bf16 the convolutions use a rounded copy of their weights, which each optimizer step updates.
/// This equals a cast in every forward pass, without another pass over memory.
#[derive(Debug)]
pub(crate) struct FlatParameters {
    pub(crate) buffer: Tensor,
    pub(crate) gradient: Tensor,
    /// `[P]` in bf16; `None` if everything is computed in f32.
    pub(crate) rounded: Option<Tensor>,
    /// Tensors that gradients are computed for, by name.
    leaves: Vec<(String, Tensor)>,
}

impl FlatParameters {
    /// Moves the trained parameters of `state` into one buffer and replaces them by views of it.
    ///
    /// # Errors
    /// An error of libtorch, such as a lack of memory.
    pub(crate) fn gather(
        state: &mut BTreeMap<String, Tensor>,
        trained: TrainableFrom,
        device: Device,
        precision: Precision,
    ) -> Result<Self, Error> {
        let names: Vec<String> = state
            .keys()
            .filter(|name| is_parameter(name) && trained.contains_name(name))
            .cloned()
            .collect();
        let count: i64 = names.iter().map(|name| elements(&state[name])).sum();
        let buffer = Tensor::f_zeros([count], (Kind::Float, device))?;
        let gradient = Tensor::f_zeros([count], (Kind::Float, device))?;
        let kind = precision.kind();
        let is_rounded = kind != Kind::Float;
        let rounded = is_rounded
            .then(|| Tensor::f_zeros([count], (kind, device)))
            .transpose()?;
        let mut leaves = Vec::with_capacity(names.len());
        let mut offset = 0;
        for name in names {
            let tensor = &state[&name];
            let length = elements(tensor);
            let mut view = view_of(&buffer, offset, &tensor.size())?;
            view.f_copy_(tensor)?;
            let shape = tensor.size();
            let computes = match &rounded {
                Some(rounded) if shape.len() == 4 => {
                    let mut rounded = view_of(rounded, offset, &shape)?;
                    rounded.f_copy_(&view)?;
                    rounded
                }
                _ => view.shallow_clone(),
            };
            // Detached from the history of the buffer, so that it is a leaf for autograd.
            let leaf = computes.f_detach()?.f_requires_grad_(true)?;
            leaves.push((name.clone(), leaf));
            state.insert(name, view.f_detach()?);
            offset += length;
        }
        Ok(FlatParameters {
            buffer,
            gradient,
            rounded,
            leaves,
        })
    }

    /// Returns the state that the network computes with: `state`, with the leaves for autograd.
    pub(crate) fn computed(&self, state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let shared = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
        let mut computed: BTreeMap<String, Tensor> = state.iter().map(shared).collect();
        computed.extend(self.leaves.iter().map(|(name, leaf)| shared((name, leaf))));
        computed
    }

    /// Returns the names and lengths of the parameters in the buffer, in order.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (&str, usize)> {
        let length = |tensor| usize::try_from(elements(tensor)).unwrap_or(0);
        self.leaves
            .iter()
            .map(move |(name, leaf)| (name.as_str(), length(leaf)))
    }

    /// Returns all trained parameters, `[P]`.
    pub(crate) fn values(&self) -> &Tensor {
        &self.buffer
    }

    /// Restores the parameters of an earlier process, `[P]`.
    ///
    /// # Errors
    /// A buffer of another length.
    pub(crate) fn restore(&mut self, values: &Tensor) -> Result<(), Error> {
        tch::no_grad(|| self.buffer.f_copy_(values))?;
        self.update_rounded()
    }

    /// Number of trained parameters.
    pub(crate) fn count(&self) -> i64 {
        elements(&self.buffer)
    }

    /// Updates the rounded copy after a change of the buffer other than an optimizer step.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(crate) fn update_rounded(&mut self) -> Result<(), Error> {
        if let Some(rounded) = &mut self.rounded {
            tch::no_grad(|| rounded.f_copy_(&self.buffer))?;
        }
        Ok(())
    }

    /// Computes the gradient of a scalar loss with respect to the buffer.
    ///
    /// # Errors
    /// An error of libtorch, such as a lack of memory.
    pub(crate) fn backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        let leaves: Vec<&Tensor> = self.leaves.iter().map(|(_, leaf)| leaf).collect();
        let gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        let mut offset = 0;
        for gradient in &gradients {
            view_of(&self.gradient, offset, &gradient.size())?.f_copy_(gradient)?;
            offset += elements(gradient);
        }
        Ok(())
    }

    /// As [`FlatParameters::backward`], for an output that `tail` computed from the features. The
    /// output is a leaf of autograd, and the loss a function of it.
    ///
    /// # Errors
    /// An error of libtorch, such as a lack of memory.
    pub(crate) fn backward_through(
        &mut self,
        tail: &mut TrainableLayers,
        features: &Tensor,
        (loss, output): (&Tensor, &Tensor),
    ) -> Result<(), Error> {
        let of_output = Tensor::f_run_backward(&[loss], &[output], false, false)?;
        tail.backward(features, &self.buffer, &of_output[0], &mut self.gradient)
    }
}

/// Returns the part of a flat buffer at `offset` as a tensor of this shape. Weights of convolutions
/// are stored channels last, like their gradients.
fn view_of(buffer: &Tensor, offset: i64, shape: &[i64]) -> Result<Tensor, Error> {
    let part = buffer.f_narrow(0, offset, shape.iter().product())?;
    match *shape {
        [output, input, height, width] => {
            let channels_last = part.f_view([output, height, width, input])?;
            Ok(channels_last.f_permute([0, 3, 1, 2])?)
        }
        _ => Ok(part.f_view(shape)?),
    }
}

fn elements(tensor: &Tensor) -> i64 {
    tensor.size().iter().product()
}
