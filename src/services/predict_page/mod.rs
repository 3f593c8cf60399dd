//! The path `/predict` on the HTTP port: the body of a POST is one encoded image, the response is
//! JSON.
//!
//! `curl --data-binary @FILE` sends the media type of forms, so the type is not used: the format of
//! the image is found in its bytes. Errors are `{"error": "...", "reason": "..."}`, with the same
//! reasons and HTTP statuses as under `/v2`.
//!
//! - `page`: the route and its handler. `query`: the parameters. `response`: the JSON.

mod page;
mod query;
mod response;

pub(crate) use page::router;
