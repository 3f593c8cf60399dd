//! The bodies of the REST form: JSON, optionally followed by tensors as bytes (Triton's binary
//! tensor data).

mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use self::{request::read, response::write};
