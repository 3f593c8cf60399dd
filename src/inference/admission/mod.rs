//! Admission control: how many images may be in the server at once.
//!
//! Everything that uses memory or compute takes a [`Permit`], so no path can bypass admission.
//! Dropping a permit releases it.
//!
//! - `controller`: grants permits, or refuses them.
//! - `quotas`: how many permits each client has.
//! - `wait`: estimates the queueing delay, to refuse images that would miss their deadline.

mod controller;
mod permit;
mod quotas;
mod wait;

pub(crate) use controller::AdmissionController;
pub(crate) use permit::Permit;

#[cfg(test)]
mod tests;
