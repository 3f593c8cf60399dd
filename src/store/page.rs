//! Pages of a list, limited by number and by bytes, and the tokens of positions.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{Stream, StreamExt};
use prost::Message;

use super::Error;

/// First byte of a token; the position follows, eight bytes, most significant first.
const TOKEN_VERSION: u8 = 1;

/// Most bytes of the items of a page, encoded.
///
/// Clients of gRPC refuse a message of more than 4 MiB unless they are configured otherwise. The
/// remaining 1 MiB is for what a service adds to stored items, such as the progress of a training
/// that is running, and for the tag and length of each item.
///
/// An item larger than this is a page of its own. Every text in a stored item is bounded where it
/// enters: names and paths by the file system, labels and display names by the services, the
/// examples and groups of a report by number and length.
pub(crate) const MAX_PAGE_BYTES: usize = 3 << 20;

/// Room of a page for further items.
#[derive(Debug)]
pub(crate) struct Room {
    items: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// Room for up to `items` items with up to `bytes` encoded bytes in total.
    pub(crate) fn new(items: usize, bytes: usize) -> Self {
        Room {
            items,
            bytes,
            is_empty: true,
        }
    }

    /// Reserves room for an item; returns false if there is not enough. The first item always fits,
    /// so that a list can be read to its end.
    pub(crate) fn take(&mut self, item: &impl Message) -> bool {
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
pub(crate) struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Position to give as `before` (or `after`) for the next page; `None` on the last one.
    pub next: Option<i64>,
}

impl<T: Message> Page<T> {
    /// Reads rows in the list's order into a page of at most `limit` items and
    /// [`MAX_PAGE_BYTES`], but of at least one item where the list has one.
    ///
    /// `item` decodes a row to its position in the list and the item. Rows after the page are
    /// not read, except one that shows that there is a next page.
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

/// Encodes a position, such as a cursor, as an opaque token: `base64url(version byte, position)`.
pub(crate) fn encode_token(cursor: i64) -> String {
    let mut bytes = [TOKEN_VERSION; 9];
    bytes[1..].copy_from_slice(&cursor.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes a token of [`encode_token`].
///
/// # Errors
/// [`Error::BadToken`].
pub(crate) fn parse_token(token: &str) -> Result<i64, Error> {
    let bad = |problem| Error::BadToken {
        token: token.chars().take(64).collect(),
        problem,
    };
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| bad("it is not base64url"))?;
    match bytes.split_first() {
        Some((&TOKEN_VERSION, cursor)) => {
            let cursor = cursor
                .try_into()
                .map(i64::from_be_bytes)
                .map_err(|_| bad("its length is wrong"))?;
            if cursor < 0 {
                return Err(bad("its position is negative"));
            }
            Ok(cursor)
        }
        Some(_) => Err(bad("it is of another version of visage")),
        None => Err(bad("it is empty")),
    }
}
