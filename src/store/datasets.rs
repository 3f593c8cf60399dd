//! Named datasets: inserting, reading and changing them.

use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use crate::{
    names::id_of,
    proto::v1::{self as pb, DatasetState},
};

use super::{
    Error, Page, Store,
    transaction::{WriteTx, run_detached},
};

/// A dataset with the number of its row, which distinguishes it from a later one of the same id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NumberedDataset {
    pub number: i64,
    pub dataset: pb::Dataset,
}

/// Numbers of datasets that may exist, including a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DatasetLimits {
    /// Datasets that are being unpacked or scanned.
    pub unfinished: usize,
    pub all: usize,
}

impl Store {
    /// Inserts a dataset in the state of its message; the store sets its times.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::UploadUsed`], [`Error::TooManyDatasets`],
    /// [`Error::DatasetsFull`].
    pub(crate) async fn insert_dataset(
        &self,
        dataset: pb::Dataset,
        limits: DatasetLimits,
    ) -> Result<NumberedDataset, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let inserted = insert(&mut write, dataset, limits).await?;
            write.commit().await?;
            Ok(inserted)
        }))
        .await
    }

    /// Returns a dataset.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn dataset(&self, id: &str) -> Result<NumberedDataset, Error> {
        let mut read = self.read().await?;
        let found = find(&mut read, id).await?;
        found.ok_or_else(|| Error::no_dataset(id))
    }

    /// Lists up to `limit` datasets, newest first, before a position.
    pub(crate) async fn list_datasets(
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

    /// Returns the datasets that are being unpacked or scanned, oldest first.
    pub(crate) async fn unfinished_datasets(&self) -> Result<Vec<NumberedDataset>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, id, message FROM datasets WHERE state < ? ORDER BY number",
        )
        .bind(DatasetState::Ready as i32)
        .fetch_all(&mut *read)
        .await?;
        rows.into_iter().map(decode).collect()
    }

    /// Returns all datasets, oldest first.
    pub(crate) async fn all_datasets(&self) -> Result<Vec<NumberedDataset>, Error> {
        let mut read = self.read().await?;
        all(&mut read).await
    }

    /// Replaces a dataset. Returns false if it was deleted meanwhile, even if another one has its
    /// id.
    pub(crate) async fn update_dataset(&self, changed: NumberedDataset) -> Result<bool, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let NumberedDataset {
                number,
                mut dataset,
            } = changed;
            dataset.update_time = Some(Timestamp::from(SystemTime::now()));
            let mut write = WriteTx::start(inner).await?;
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
}

/// Returns all datasets, oldest first.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<NumberedDataset>, Error> {
    let rows: Vec<Row> = sqlx::query_as("SELECT number, id, message FROM datasets ORDER BY number")
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(decode).collect()
}

/// Checks, in the transaction that inserts a training, that its dataset exists.
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
    write: &mut WriteTx,
    mut dataset: pb::Dataset,
    limits: DatasetLimits,
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
    if usize::try_from(unfinished).is_ok_and(|unfinished| unfinished >= limits.unfinished) {
        return Err(Error::TooManyDatasets {
            limit: limits.unfinished,
        });
    }
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM datasets")
        .fetch_one(write.connection())
        .await?;
    if usize::try_from(all).is_ok_and(|all| all >= limits.all) {
        return Err(Error::DatasetsFull { limit: limits.all });
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

pub(super) async fn find(
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
