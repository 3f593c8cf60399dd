//! `--init`: initial weights by a word, a model version or a file.

use std::path::{Path, PathBuf};

use crate::{
    cli::{
        args::{paths::absolute, short_names},
        error::Error,
    },
    names,
    proto::v1::{InitKind, InitSpec},
};

/// Aliases that every server may have; others are given as full names.
const ALIASES: [&str; 2] = [names::LIVE, names::PREVIOUS];
const FILE_EXTENSIONS: [&str; 5] = ["pth", "pt", "safetensors", "bin", "ckpt"];
const ACCEPTED: &str = "imagenet1k_v1, starter, random, a model version (live, previous, a number \
    or models/MODEL/versions/VERSION), or a .pth or .safetensors file on the server's disk";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InitialWeights {
    /// Weights without further fields.
    Kind(InitKind),
    /// Full name of a model version.
    Version(String),
    File(PathBuf),
}

impl InitialWeights {
    /// # Errors
    /// A word that is not accepted and does not name a file of this machine.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "IMAGENET1K_V1" | "IMAGENET" => return Ok(Self::Kind(InitKind::Imagenet1kV1)),
            "RANDOM" => return Ok(Self::Kind(InitKind::Random)),
            "STARTER" => return Ok(Self::Kind(InitKind::Starter)),
            _ => {}
        }
        let is_number = text.parse::<u64>().is_ok_and(|number| number > 0);
        if is_number || ALIASES.contains(&text) {
            return Ok(Self::Version(short_names::version(
                names::DEFAULT_MODEL,
                text,
            )));
        }
        if names::VersionName::parse(text).is_ok() {
            return Ok(Self::Version(text.to_owned()));
        }
        let path = Path::new(text);
        let extension = path.extension().and_then(|extension| extension.to_str());
        let has_extension = extension.is_some_and(|extension| {
            FILE_EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension))
        });
        if has_extension || text.contains('/') || path.exists() {
            return Ok(Self::File(path.to_owned()));
        }
        Err(format!("must be {ACCEPTED}"))
    }

    pub(crate) fn spec(self, key: Option<String>) -> Result<InitSpec, Error> {
        let spec = match self {
            Self::Kind(kind) => InitSpec {
                kind: kind.into(),
                ..InitSpec::default()
            },
            Self::Version(version) => InitSpec {
                kind: InitKind::Path.into(),
                version,
                ..InitSpec::default()
            },
            Self::File(path) => InitSpec {
                kind: InitKind::Path.into(),
                path: absolute(path)?,
                ..InitSpec::default()
            },
        };
        Ok(InitSpec {
            key: key.unwrap_or_default(),
            ..spec
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_words_versions_or_files() {
        let version =
            |number: &str| InitialWeights::Version(format!("models/age/versions/{number}"));
        let file = |path: &str| InitialWeights::File(PathBuf::from(path));
        for (text, expected) in [
            ("starter", InitialWeights::Kind(InitKind::Starter)),
            (
                "IMAGENET1K_V1",
                InitialWeights::Kind(InitKind::Imagenet1kV1),
            ),
            ("Random", InitialWeights::Kind(InitKind::Random)),
            ("live", version("live")),
            ("previous", version("previous")),
            ("4", version("4")),
            ("models/age/versions/canary", version("canary")),
            ("resnet18.pth", file("resnet18.pth")),
            ("weights/age.safetensors", file("weights/age.safetensors")),
            ("/weights/no-extension", file("/weights/no-extension")),
        ] {
            assert_eq!(InitialWeights::parse(text), Ok(expected), "{text}");
        }
        for text in ["imagnet", "0", "lve"] {
            let error = InitialWeights::parse(text).unwrap_err();
            assert!(
                error.starts_with("must be imagenet1k_v1, starter, random, "),
                "{error}"
            );
        }
    }

    #[test]
    fn a_version_is_sent_without_a_path() {
        let weights = InitialWeights::parse("4").unwrap();
        let spec = weights.spec(None).unwrap();
        assert_eq!(spec.kind(), InitKind::Path);
        assert_eq!(
            (spec.path.as_str(), spec.version.as_str()),
            ("", "models/age/versions/4")
        );
    }
}
