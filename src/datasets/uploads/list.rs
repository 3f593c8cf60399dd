//! The list of uploads.

use std::{collections::HashSet, time::SystemTime};

use fs_err::tokio as async_fs;

use super::{
    super::{Error, blocking::blocking},
    directory::{Upload, Uploads},
    scope::Scope,
};

/// An upload with the times that decide when it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedUpload {
    pub upload: Upload,
    /// Time of the last received byte.
    pub updated: SystemTime,
    pub expires: SystemTime,
}

impl Uploads {
    /// Lists the uploads of a scope, the last updated first, except those in `needed`.
    pub(in crate::datasets) async fn list(
        &self,
        needed: &HashSet<String>,
        scope: &Scope,
    ) -> Result<Vec<ListedUpload>, Error> {
        let inner = self.inner.clone();
        let ids = blocking(move || inner.ids()).await?;
        let mut listed = Vec::new();
        for id in ids {
            let text = id.to_string();
            if needed.contains(&text) {
                continue;
            }
            match self.listed(&text, scope).await {
                Ok(upload) => listed.push(upload),
                // Outside the scope, or removed after the directory was read.
                Err(Error::NoUpload { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        listed.sort_unstable_by(|one, other| {
            let order = other.updated.cmp(&one.updated);
            order.then_with(|| one.upload.id.cmp(&other.upload.id))
        });
        Ok(listed)
    }

    async fn listed(&self, id: &str, scope: &Scope) -> Result<ListedUpload, Error> {
        let upload = self.get(id, scope).await?;
        let data = async_fs::metadata(self.inner.data(upload.id)).await;
        let updated = match data {
            Ok(data) => data.modified()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoUpload {
                    upload: id.to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        Ok(ListedUpload {
            upload,
            updated,
            expires: updated + self.inner.expiry,
        })
    }
}
