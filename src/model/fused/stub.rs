//! Stub for targets without fused kernels.

use std::{collections::BTreeMap, io};

use tch::Tensor;

use super::{
    super::{
        Error,
        forward::{Mode, Output},
        layers::TrainableFrom,
        precision::Precision,
    },
    threads::Threads,
};

#[derive(Debug)]
pub(crate) enum Network {}

impl Precision {
    pub(crate) fn has_fused_kernels(self) -> bool {
        false
    }

    pub(crate) fn widen_all(self, _: &[u16], out: &mut [f32]) {
        out.fill(f32::NAN);
    }
}

#[derive(Debug)]
pub(crate) struct Workspace;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Features<'a> {
    pub(crate) values: &'a [u16],
    pub(crate) side: usize,
    pub(crate) channels: usize,
}

impl Workspace {
    pub(crate) const fn new() -> Self {
        Workspace
    }
}

impl Network {
    pub(crate) fn new(
        _: Precision,
        _: &BTreeMap<String, Tensor>,
        _: usize,
    ) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    pub(crate) fn fastest(_: &BTreeMap<String, Tensor>, _: usize) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    pub(crate) fn precision(&self) -> Precision {
        match *self {}
    }

    pub(crate) fn features<'a>(
        &self,
        _: &[&[f32]],
        _: usize,
        _: &Threads,
        _: &'a mut Workspace,
    ) -> io::Result<Features<'a>> {
        match *self {}
    }

    pub(crate) fn forward(
        &self,
        _: &[&[f32]],
        _: &[bool],
        _: usize,
        _: &Threads,
        _: &mut Workspace,
    ) -> io::Result<Vec<Output>> {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum TrainableLayers {}

impl TrainableLayers {
    pub(crate) fn new<'a>(
        _: impl Iterator<Item = (&'a str, usize)>,
        _: TrainableFrom,
        _: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        None
    }

    #[cfg(test)]
    pub(crate) fn in_bf16<'a>(
        _: impl Iterator<Item = (&'a str, usize)>,
        _: TrainableFrom,
        _: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        None
    }

    #[cfg(test)]
    pub(crate) fn emulated_bf16<'a>(
        _: impl Iterator<Item = (&'a str, usize)>,
        _: TrainableFrom,
        _: &BTreeMap<String, Tensor>,
    ) -> Option<Self> {
        None
    }

    pub(crate) fn can_train(_: TrainableFrom) -> bool {
        false
    }

    pub(crate) fn takes_images(&self) -> bool {
        match *self {}
    }

    pub(crate) fn load(&mut self, _: &Tensor) {
        match *self {}
    }

    pub(crate) fn forward(&mut self, _: &Tensor, _: &Tensor, _: Mode) -> Result<Tensor, Error> {
        match *self {}
    }

    pub(crate) fn backward(
        &mut self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &mut Tensor,
    ) -> Result<(), Error> {
        match *self {}
    }
}
