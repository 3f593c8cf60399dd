//! Datasets with a name: inserting, reading, changing and deleting them.

use std::path::Path;
use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use super::database::{Write, run_detached};
use super::{Error, Page, Store};
use crate::names::id_of;
use crate::proto::v1::{self as pb, DatasetKind, DatasetState};

/// A dataset and the number of its row, which a later one of the same id does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedDataset {
    /// The number.
    pub number: i64,
    /// The dataset.
    pub dataset: pb::Dataset,
}

impl Store {
    /// Stores a new dataset in the state that its message has; the store sets its times. At most `max_unfinished` may be unpacked or scanned, this one included.
    ///
    /// Errors: [`Error::AlreadyExists`], [`Error::UploadUsed`], [`Error::TooManyDatasets`].
    pub async fn insert_dataset(
        &self,
        dataset: pb::Dataset,
        max_unfinished: usize,
    ) -> Result<NumberedDataset, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = Write::begin(inner).await?;
            let inserted = insert(&mut write, dataset, max_unfinished).await?;
            write.commit().await?;
            Ok(inserted)
        }))
        .await
    }

    /// One dataset. Errors: [`Error::NotFound`].
    pub async fn dataset(&self, id: &str) -> Result<NumberedDataset, Error> {
        let mut read = self.read().await?;
        let found = find(&mut read, id).await?;
        found.ok_or_else(|| Error::no_dataset(id))
    }

    /// Up to `limit` datasets, newest first, before a place in the list.
    pub async fn list_datasets(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::Dataset>, Error> {
        let mut read = self.read().await?;
        let rows = sqlx::query_as(
            "SELECT number, id, message FROM datasets WHERE number < ? ORDER BY number DESC LIMIT ?",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        let item = |row| decode(row).map(|found| (found.number, found.dataset));
        Page::read(rows, limit, item).await
    }

    /// Every dataset that is being unpacked or scanned, oldest first.
    pub async fn unfinished_datasets(&self) -> Result<Vec<NumberedDataset>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, id, message FROM datasets WHERE state < ? ORDER BY number",
        )
        .bind(DatasetState::Ready as i32)
        .fetch_all(&mut *read)
        .await?;
        rows.into_iter().map(decode).collect()
    }

    /// All datasets, oldest first.
    pub async fn all_datasets(&self) -> Result<Vec<NumberedDataset>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<Row> =
            sqlx::query_as("SELECT number, id, message FROM datasets ORDER BY number")
                .fetch_all(&mut *read)
                .await?;
        rows.into_iter().map(decode).collect()
    }

    /// Replaces a dataset. False when it was deleted meanwhile, even if there is another one of its id.
    pub async fn update_dataset(&self, changed: NumberedDataset) -> Result<bool, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let NumberedDataset {
                number,
                mut dataset,
            } = changed;
            dataset.update_time = Some(Timestamp::from(SystemTime::now()));
            let mut write = Write::begin(inner).await?;
            let done = sqlx::query("UPDATE datasets SET state = ?, message = ? WHERE number = ?")
                .bind(dataset.state)
                .bind(dataset.encode_to_vec())
                .bind(number)
                .execute(write.connection())
                .await?;
            write.commit().await?;
            Ok(done.rows_affected() > 0)
        }))
        .await
    }

    /// Forgets a dataset and returns what it was; its files are the caller's.
    ///
    /// Errors: [`Error::NotFound`], [`Error::DatasetInUse`].
    pub async fn delete_dataset(&self, id: &str) -> Result<NumberedDataset, Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = Write::begin(inner).await?;
            let found = find(write.connection(), &id)
                .await?
                .ok_or_else(|| Error::no_dataset(&id))?;
            let live = super::trainings::live(write.connection()).await?;
            if let Some(training) = live
                .into_iter()
                .find(|training| reads(training, &found.dataset))
            {
                return Err(Error::DatasetInUse {
                    name: found.dataset.name,
                    training: training.name,
                });
            }
            sqlx::query("DELETE FROM datasets WHERE number = ?")
                .bind(found.number)
                .execute(write.connection())
                .await?;
            write.commit().await?;
            Ok(found)
        }))
        .await
    }
}

/// Whether a training reads the dataset: by its name, or by a path into files that would go with it.
fn reads(training: &pb::Training, dataset: &pb::Dataset) -> bool {
    let read = training.resolved_spec.as_ref();
    let Some(read) = read.and_then(|spec| spec.dataset.as_ref()) else {
        return false;
    };
    let is_inside = || Path::new(&read.path).starts_with(&dataset.path);
    read.name == dataset.name || (dataset.kind() == DatasetKind::Uploaded && is_inside())
}

/// Checks that a training's dataset is still there, inside the transaction that inserts the training.
pub(super) async fn check_used(
    connection: &mut SqliteConnection,
    training: &pb::Training,
) -> Result<(), Error> {
    let read = training.resolved_spec.as_ref();
    let name = read
        .and_then(|spec| spec.dataset.as_ref())
        .map_or("", |dataset| dataset.name.as_str());
    let Some(id) = name.strip_prefix("datasets/") else {
        return Ok(());
    };
    match find(connection, id).await? {
        Some(_) => Ok(()),
        None => Err(Error::no_dataset(id)),
    }
}

async fn insert(
    write: &mut Write,
    mut dataset: pb::Dataset,
    max_unfinished: usize,
) -> Result<NumberedDataset, Error> {
    let id = id_of(&dataset.name).to_owned();
    if find(write.connection(), &id).await?.is_some() {
        return Err(Error::AlreadyExists { name: dataset.name });
    }
    let upload = Some(&dataset.upload).filter(|upload| !upload.is_empty());
    let user: Option<String> = sqlx::query_scalar("SELECT id FROM datasets WHERE upload = ?")
        .bind(upload)
        .fetch_optional(write.connection())
        .await?;
    if let Some(user) = user {
        return Err(Error::UploadUsed {
            upload: dataset.upload,
            dataset: format!("datasets/{user}"),
        });
    }
    let unfinished: i64 = sqlx::query_scalar("SELECT count(*) FROM datasets WHERE state < ?")
        .bind(DatasetState::Ready as i32)
        .fetch_one(write.connection())
        .await?;
    if usize::try_from(unfinished).is_ok_and(|unfinished| unfinished >= max_unfinished) {
        return Err(Error::TooManyDatasets {
            limit: max_unfinished,
        });
    }
    let now = Timestamp::from(SystemTime::now());
    dataset.create_time = Some(now);
    dataset.update_time = Some(now);
    let number =
        sqlx::query("INSERT INTO datasets (id, state, upload, message) VALUES (?, ?, ?, ?)")
            .bind(&id)
            .bind(dataset.state)
            .bind(upload)
            .bind(dataset.encode_to_vec())
            .execute(write.connection())
            .await?
            .last_insert_rowid();
    Ok(NumberedDataset { number, dataset })
}

/// Number, id and message.
type Row = (i64, String, Vec<u8>);

async fn find(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<NumberedDataset>, Error> {
    let row: Option<Row> = sqlx::query_as("SELECT number, id, message FROM datasets WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.map(decode).transpose()
}

fn decode((number, id, message): Row) -> Result<NumberedDataset, Error> {
    let dataset = pb::Dataset::decode(message.as_slice()).map_err(|source| Error::Damaged {
        what: "dataset",
        name: format!("datasets/{id}"),
        source,
    })?;
    Ok(NumberedDataset { number, dataset })
}
