use std::collections::HashMap;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};

/// A set with more keys is a mistake.
const MAX_KEYS: usize = 100;

/// The keys of an issuer, each with the one algorithm that it may verify.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    by_id: HashMap<String, Key>,
    /// Of sets whose only key has no id.
    unnamed: Option<Key>,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Keys {
    /// Reads a JWKS document; keys of other kinds and for encryption are ignored.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("{} keys, more than {MAX_KEYS}", set.keys.len()));
        }
        let mut keys = Self::default();
        for jwk in &set.keys {
            let Some(key) = supported(jwk) else {
                continue;
            };
            match &jwk.common.key_id {
                Some(id) => {
                    keys.by_id.insert(id.clone(), key);
                }
                None => keys.unnamed = Some(key),
            }
        }
        if keys.by_id.is_empty() && keys.unnamed.is_none() {
            return Err("no key for RS256, ES256 or EdDSA, the supported algorithms".to_owned());
        }
        Ok(keys)
    }

    /// The key of this id; without an id the only key.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.by_id.get(id).or(self.unnamed.as_ref()),
            None if self.by_id.is_empty() => self.unnamed.as_ref(),
            None if self.by_id.len() == 1 && self.unnamed.is_none() => self.by_id.values().next(),
            None => None,
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the list of supported kinds is complete"
)]
fn supported(jwk: &Jwk) -> Option<Key> {
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|use_| *use_ != PublicKeyUse::Signature)
    {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    // A key that names another algorithm may not verify this one.
    let named = jwk.common.key_algorithm.map(|named| named.to_string());
    if named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { algorithm, key })
}
