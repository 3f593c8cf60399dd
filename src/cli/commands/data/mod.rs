//! Commands on data directories, which work without a server: `backup`, `verify`, `restore` and
//! `repair`.

mod args;
pub(crate) mod backup;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod verify;
