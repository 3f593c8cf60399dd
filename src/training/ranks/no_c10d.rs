//! Stub for builds against a libtorch without the headers of its process group.

use std::{convert::Infallible, net::TcpListener, time::Duration};

/// Other ranks of the training; never created.
#[derive(Debug)]
pub(super) struct Group(Infallible);

/// Place of a rank.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) rank: usize,
    pub(super) count: usize,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) listener: Option<TcpListener>,
    pub(super) is_hosted: bool,
    pub(super) name: &'a str,
    pub(super) timeout: Duration,
}

impl Group {
    pub(super) fn connect(place: Place<'_>) -> Result<Self, String> {
        let Place { rank, count, .. } = place;
        Err(format!(
            "rank {rank} of {count} is not supported, because this program was built without c10d"
        ))
    }

    pub(super) fn all_to_all(&self, _: &mut [f32], _: &mut [f32]) -> Result<(), String> {
        match self.0 {}
    }

    pub(super) fn all_gather(&self, _: &mut [u8], _: &mut [u8]) -> Result<(), String> {
        match self.0 {}
    }

    pub(super) fn broadcast(&self, _: &mut [u8]) -> Result<(), String> {
        match self.0 {}
    }
}
