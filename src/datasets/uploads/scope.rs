//! The uploads that a request may use.

/// Selection of uploads by the client that created them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// Uploads of this client.
    Client(String),
}

impl Scope {
    /// Returns true if an upload that `client` created is selected. Uploads without a recorded
    /// client belong to nobody.
    pub(super) fn contains(&self, client: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Client(own) => !client.is_empty() && own == client,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        datasets::{Error, uploads::Uploads},
        disk::Disk,
    };

    fn open(directory: &TempDir) -> Uploads {
        let path = directory.path().to_owned();
        let disk = Disk::new(path.clone(), 0);
        Uploads::open(path, 100, disk, Duration::from_secs(3600)).unwrap()
    }

    fn own(client: &str) -> Scope {
        Scope::Client(client.to_owned())
    }

    #[tokio::test]
    async fn upload_of_another_client_does_not_exist() {
        let directory = TempDir::new().unwrap();
        let uploads = open(&directory);
        let id = uploads.create(4, "ada", "").await.unwrap().id.to_string();
        let unknown = uuid::Uuid::from_u128(7).to_string();
        let eve = own("eve");
        for scope in [&eve, &own(""), &own("ad")] {
            let found = uploads.get(&id, scope).await.unwrap_err().to_string();
            let expected = uploads.get(&unknown, scope).await.unwrap_err().to_string();
            assert_eq!(found.replace(&id, &unknown), expected);
        }
        // Also while its owner writes to it, which would be reported as busy.
        let mut writer = uploads.write_at(&id, 0, &own("ada")).await.unwrap();
        writer.write(b"ab").await.unwrap();
        let written = uploads.write_at(&id, 0, &eve).await;
        assert!(matches!(written, Err(Error::NoUpload { .. })));
        let removed = uploads.remove(&id, &eve).await;
        assert!(matches!(removed, Err(Error::NoUpload { .. })));
        writer.finish().await.unwrap();

        let ids = async |scope: Scope| -> Vec<String> {
            let listed = uploads.list(&HashSet::new(), &scope).await.unwrap();
            let ids = listed.iter().map(|listed| listed.upload.id.to_string());
            ids.collect()
        };
        assert_eq!(ids(own("eve")).await, [""; 0]);
        assert_eq!(ids(own("ada")).await, [id.as_str()]);
        assert_eq!(ids(Scope::All).await, [id.as_str()]);
        uploads.write_at(&id, 2, &Scope::All).await.unwrap();
        uploads.remove(&id, &own("ada")).await.unwrap();
        assert_eq!(ids(Scope::All).await, [""; 0]);
    }

    #[tokio::test]
    async fn upload_without_a_client_is_only_in_the_scope_of_all() {
        let directory = TempDir::new().unwrap();
        let uploads = open(&directory);
        // As the first version wrote it.
        let id = uuid::Uuid::from_u128(9).to_string();
        let path = directory.path().join(&id);
        let metadata = r#"{"format":1,"length":3}"#;
        fs_err::write(path.with_extension("json"), metadata).unwrap();
        fs_err::write(path.with_extension("data"), b"a").unwrap();
        assert!(uploads.get(&id, &own("")).await.is_err());
        let found = uploads.get(&id, &Scope::All).await.unwrap();
        assert_eq!((found.offset, found.length), (1, 3));
    }
}
