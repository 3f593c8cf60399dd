//! Tokens of clients, which never appear in messages.

use std::fmt;

const MAX_BYTES: usize = 16 * 1024;

/// A secret that authenticates a client.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// Visible ASCII characters, without the white space around them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_valid = (1..=MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.to_owned()))
    }

    /// The text, for the header of a request only.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}
