//! Work in the background that keeps the data sound and bounded.
//!
//! - `scrub`: verifies all artifacts, one after the other, in endless passes.
//! - `retention`: deletes old rows.

mod retention;
mod scrub;

pub(crate) use self::{
    retention::{Expiry, run as expire},
    scrub::{Scrub, run as scrub},
};

/// The time in seconds since the Unix epoch.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}
