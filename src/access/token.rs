//! The text of a token: `vsg_`, 43 letters and digits of 256 random bits, and 6 of a checksum.
//!
//! The fixed prefix lets secret scanners find tokens; the checksum distinguishes a typing error
//! from a revoked token. Only hashes of tokens are stored. They need no salt and no slow hash,
//! because a token has 256 random bits.

use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "vsg_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_BYTES: usize = 32;
/// Digits of base 62 for 256 bits.
const SECRET_DIGITS: usize = 43;
/// Digits of base 62 for 32 bits.
const CHECKSUM_DIGITS: usize = 6;
/// Longest accepted text, so that hashing is bounded.
pub(super) const MAX_TOKEN: usize = PREFIX.len() + SECRET_DIGITS + CHECKSUM_DIGITS;

/// SHA-256 of the text of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    const PREFIX: &'static str = "sha256:";

    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The form in the token file, `sha256:` and 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A new token.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn generate() -> Result<String, rand::rand_core::OsError> {
    let mut secret = [0; SECRET_BYTES];
    OsRng.try_fill_bytes(&mut secret)?;
    let secret = base62(&secret, SECRET_DIGITS);
    let checksum = base62(
        &crc32fast::hash(secret.as_bytes()).to_be_bytes(),
        CHECKSUM_DIGITS,
    );
    Ok(format!("{PREFIX}{secret}{checksum}"))
}

/// Returns whether the text has the form of a token and no typing error.
pub(crate) fn is_well_formed(token: &str) -> bool {
    let Some(rest) = token.strip_prefix(PREFIX) else {
        return false;
    };
    if rest.len() != SECRET_DIGITS + CHECKSUM_DIGITS || !rest.is_ascii() {
        return false;
    }
    let (secret, checksum) = rest.split_at(SECRET_DIGITS);
    base62(
        &crc32fast::hash(secret.as_bytes()).to_be_bytes(),
        CHECKSUM_DIGITS,
    ) == checksum
}

/// The number of these big-endian bytes in base 62, with leading zeros.
fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        let remainder = number.iter_mut().fold(0u32, |remainder, byte| {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            value % 62
        });
        *digit = ALPHABET[remainder as usize];
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base62_of_known_numbers() {
        // 62^2 = 3844, 2^32 - 1 = 4*62^5 + 42*62^4 + 42*62^3 + 11*62^2 + 7*62 + 3... computed with
        // Python's divmod.
        assert_eq!(base62(&3844u32.to_be_bytes(), 6), "000100");
        assert_eq!(base62(&61u32.to_be_bytes(), 6), "00000z");
        assert_eq!(base62(&u32::MAX.to_be_bytes(), 6), "4gfFC3");
        assert_eq!(base62(&[255; 32], 43).len(), 43);
    }

    #[test]
    fn tokens_are_well_formed_and_differ() {
        let (first, second) = (generate().unwrap(), generate().unwrap());
        assert!(is_well_formed(&first) && is_well_formed(&second));
        assert_ne!(first, second);
        assert_eq!(first.len(), MAX_TOKEN);
        let replaced = if first.contains('a') {
            first.replacen('a', "b", 1)
        } else {
            format!("{}0", &first[..first.len() - 1])
        };
        for wrong in [
            "",
            "vsg_",
            "abc",
            &first[1..],
            &format!("{first}0"),
            replaced.as_str(),
        ] {
            assert!(wrong == first || !is_well_formed(wrong), "{wrong}");
        }
    }

    #[test]
    fn hash_is_sha256_of_the_text() {
        // `printf abc | sha256sum`
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of("abc").to_string(), expected);
        assert_eq!(TokenHash::parse(expected), Some(TokenHash::of("abc")));
        for wrong in ["", "sha256:ab", &expected[7..], &expected.replace('b', "g")] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
    }
}
