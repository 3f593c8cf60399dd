//! Uploads of archives over the HTTP port, and sample images of datasets.
//!
//! | Path | Response |
//! |---|---|
//! | POST `/datasets/uploads` with `Upload-Length` | 201, `Location`, and the upload as JSON |
//! | HEAD `/datasets/uploads/{id}` | `Upload-Offset`, `Upload-Length` and `Upload-Metadata` |
//! | PATCH `/datasets/uploads/{id}` with `Upload-Offset` and bytes | 204 and `Upload-Offset` |
//! | DELETE `/datasets/uploads/{id}` | 204 |
//! | `/datasets/{id}/samples/{index}` | a JPEG |
//!
//! This is the core of the resumable upload protocol tus 1.0.0 with its extensions `creation` and
//! `termination`. CreateDataset creates a dataset from a complete upload. Bytes are written as they
//! arrive, and those of an interrupted PATCH are kept. `Upload-Metadata` of the POST is optional; a
//! client that resumes later recognizes the content by it. With authentication, an upload exists
//! for its identity and for administrators only. Errors are `{"error": "...", "reason": "..."}`.
//!
//! `routes` has the methods, `body` writes the bytes of a PATCH, and `failure` converts errors.

mod body;
mod failure;
mod routes;

pub(crate) use self::routes::{EXPOSED, METHODS, router};
