//! Page sizes and page tokens of lists.

use tonic::Status;

use super::status;
use crate::store;

const MAX_PAGE: i32 = 1_000;

/// The requested part of a list.
pub(super) struct PageRequest {
    pub(super) limit: u32,
    /// The position of the page; `None` for the first page.
    pub(super) cursor: Option<i64>,
}

impl PageRequest {
    /// A size of 0 means `default`; larger sizes than the maximum mean the maximum.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a negative size or an invalid token.
    pub(super) fn read(size: i32, default: u32, token: &str) -> Result<Self, Status> {
        let limit = match size {
            0 => default,
            1.. => size.min(MAX_PAGE).unsigned_abs(),
            _ => {
                let description = format!("must be from 0 to {MAX_PAGE}, got {size}");
                return Err(status::invalid("page_size", description));
            }
        };
        let cursor = (!token.is_empty())
            .then(|| store::parse_token(token))
            .transpose()
            .map_err(|error| status::invalid("page_token", error))?;
        Ok(PageRequest { limit, cursor })
    }
}

/// The token of the next page; empty on the last.
pub(super) fn next_page_token(next: Option<i64>) -> String {
    next.map(store::encode_token).unwrap_or_default()
}
