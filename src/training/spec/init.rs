//! Initial weights.

use crate::{
    model::init::Init,
    proto::{v1, validation::Check},
};

/// Longest `key` in bytes.
const MAX_KEY: usize = 1_024;

pub(super) fn read(check: &mut Check, given: Option<&v1::InitSpec>) -> Init {
    let Some(given) = given else {
        return Init::ImageNet;
    };
    let kind = check.choice("spec.init.kind", given.kind, v1::InitKind::Imagenet1kV1);
    let init = match kind {
        v1::InitKind::Unspecified | v1::InitKind::Imagenet1kV1 => Init::ImageNet,
        v1::InitKind::Random => Init::Random,
        v1::InitKind::Starter => Init::Starter,
        v1::InitKind::Path => Init::Path {
            path: given.path.clone(),
            key: given.key.clone(),
            version: given.version.clone(),
        },
    };
    let is_path = matches!(init, Init::Path { .. });
    if given.key.len() > MAX_KEY {
        check.refuse(
            "spec.init.key",
            format!("must have at most {MAX_KEY} bytes, got {}", given.key.len()),
        );
    }
    if !is_path && !given.key.is_empty() {
        check.refuse(
            "spec.init.key",
            format!(
                "must be empty unless spec.init.kind is PATH, got {:?}",
                given.key
            ),
        );
    }
    if !is_path && !given.path.is_empty() {
        check.refuse(
            "spec.init.path",
            format!(
                "must be empty unless spec.init.kind is PATH, got {:?}",
                given.path
            ),
        );
    }
    if is_path && given.path.is_empty() && given.version.is_empty() {
        check.refuse(
            "spec.init.path",
            "must not be empty; set it to a .pth or .safetensors file on the server",
        );
    }
    init
}

pub(super) fn message(init: &Init) -> v1::InitSpec {
    let kind = match init {
        Init::ImageNet => v1::InitKind::Imagenet1kV1,
        Init::Path { path, key, version } => {
            return v1::InitSpec {
                kind: v1::InitKind::Path.into(),
                path: path.clone(),
                key: key.clone(),
                version: version.clone(),
            };
        }
        Init::Random => v1::InitKind::Random,
        Init::Starter => v1::InitKind::Starter,
    };
    v1::InitSpec {
        kind: kind.into(),
        ..v1::InitSpec::default()
    }
}
