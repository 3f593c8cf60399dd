//! Pages of a list, cut by number and by bytes.

use futures_util::{Stream, StreamExt};
use prost::Message;

use super::Error;

/// Most bytes of the items of a page, encoded.
///
/// Clients of gRPC refuse a message of more than 4 MiB unless they are configured otherwise. The
/// remaining 1 MiB is for what a service adds to stored items, such as the progress of a training
/// that is running, and for the tag and length of each item.
///
/// An item larger than this is a page of its own. Every text in a stored item is bounded where it
/// enters: names and paths by the file system, labels and display names by the services, the
/// examples and groups of a report by number and length.
pub const MAX_PAGE_BYTES: usize = 3 << 20;

/// The room that a page has for further items.
#[derive(Debug)]
pub struct Room {
    items: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// Room for up to `items` items of up to `bytes` bytes together, encoded.
    pub fn new(items: usize, bytes: usize) -> Self {
        Room {
            items,
            bytes,
            is_empty: true,
        }
    }

    /// Takes the room of an item; false when there is not enough. The first item always has
    /// room, so that a list can be read to its end.
    pub fn take(&mut self, item: &impl Message) -> bool {
        let bytes = item.encoded_len();
        if self.items == 0 || (bytes > self.bytes && !self.is_empty) {
            return false;
        }
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_empty = false;
        true
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items in the list's order.
    pub items: Vec<T>,
    /// Position to give as `before` (or `after`) for the next page; `None` on the last one.
    pub next: Option<i64>,
}

impl<T: Message> Page<T> {
    /// Reads rows in the list's order into a page of at most `limit` items and
    /// [`MAX_PAGE_BYTES`], but of at least one item where the list has one.
    ///
    /// `item` decodes a row to its position in the list and the item. Rows behind the page are
    /// not read, except for one that shows that there is a next page.
    pub(super) async fn read<R>(
        rows: impl Stream<Item = Result<R, sqlx::Error>>,
        limit: u32,
        mut item: impl FnMut(R) -> Result<(i64, T), Error>,
    ) -> Result<Self, Error> {
        let mut rows = std::pin::pin!(rows);
        let mut room = Room::new(limit as usize, MAX_PAGE_BYTES);
        let mut items = Vec::new();
        let mut last = None;
        while let Some(row) = rows.next().await {
            let (position, read) = item(row?)?;
            if !room.take(&read) {
                return Ok(Page { items, next: last });
            }
            items.push(read);
            last = Some(position);
        }
        Ok(Page { items, next: None })
    }
}
