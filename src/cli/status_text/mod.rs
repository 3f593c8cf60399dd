//! Statuses of the server as error messages: settings by the flags of the commands, remedies as
//! commands.

mod describe;
mod flags;

pub(crate) use self::{
    describe::{describe, is_wrong_usage, reason},
    flags::with_flags,
};
