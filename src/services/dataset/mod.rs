//! DatasetService: `api` has the methods, `crud` the named datasets, and `check` CheckDataset with
//! its `report`.

mod api;
mod check;
mod crud;
mod report;

pub(crate) use self::{api::DatasetApi, check::Checks, crud::DatasetCrud};
