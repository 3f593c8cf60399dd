//! The parts of the network, and which of them are trained.

use crate::model::Error;

/// The network's parts in the order in which an image passes through them; each is trained whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The 7×7 convolution at the input.
    Conv1,
    /// The BatchNorm behind it.
    Bn1,
    /// 64 channels.
    Layer1,
    /// 128 channels.
    Layer2,
    /// 256 channels.
    Layer3,
    /// 512 channels.
    Layer4,
    /// The linear head, 512 to 1.
    Fc,
}

impl Layer {
    /// All parts in order.
    pub const ALL: [Layer; 7] = [
        Layer::Conv1,
        Layer::Bn1,
        Layer::Layer1,
        Layer::Layer2,
        Layer::Layer3,
        Layer::Layer4,
        Layer::Fc,
    ];

    /// The prefix of its parameters' names.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Conv1 => "conv1",
            Layer::Bn1 => "bn1",
            Layer::Layer1 => "layer1",
            Layer::Layer2 => "layer2",
            Layer::Layer3 => "layer3",
            Layer::Layer4 => "layer4",
            Layer::Fc => "fc",
        }
    }
}

/// The trained parts: `first` and all that follow. What lies before is frozen.
///
/// Gradients flow backward from the output, so a frozen part behind a trained one would cost as much as a trained one and save nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainableFrom {
    pub(super) first: Layer,
}

impl TrainableFrom {
    /// layer4 and fc.
    pub const DEFAULT: TrainableFrom = TrainableFrom {
        first: Layer::Layer4,
    };

    /// fc alone, as little as can be trained; for networks that are not trained at all too.
    pub const HEAD: TrainableFrom = TrainableFrom { first: Layer::Fc };

    /// Reads names such as `["layer4", "fc"]` or `["ALL"]`.
    ///
    /// # Errors
    /// A name that is no part, no name at all, or parts that do not reach to the head without a gap.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Error> {
        let known = || {
            let names: Vec<_> = Layer::ALL.iter().map(|part| part.name()).collect();
            names.join(", ")
        };
        let mut wanted = Vec::new();
        for name in names {
            let name = name.as_ref();
            if name.eq_ignore_ascii_case("all") {
                return Ok(TrainableFrom {
                    first: Layer::Conv1,
                });
            }
            let part = Layer::ALL.into_iter().find(|part| part.name() == name);
            wanted.push(part.ok_or_else(|| {
                Error::Trainable(format!(
                    "{name:?} is no part of the network; the parts are {}, and ALL",
                    known()
                ))
            })?);
        }
        let first = wanted.iter().min().copied().ok_or_else(|| {
            Error::Trainable(format!(
                "no part is named; the parts are {}, and ALL",
                known()
            ))
        })?;
        let gap = Layer::ALL
            .into_iter()
            .find(|part| *part > first && !wanted.contains(part));
        if let Some(gap) = gap {
            return Err(Error::Trainable(format!(
                "{} is trained but {}, which follows it, is not; add {} or leave {} out",
                first.name(),
                gap.name(),
                gap.name(),
                first.name()
            )));
        }
        Ok(TrainableFrom { first })
    }

    /// Whether the part is trained.
    pub fn contains(self, part: Layer) -> bool {
        part >= self.first
    }

    /// Whether the parameter or buffer of this name belongs to a trained part.
    pub fn contains_name(self, name: &str) -> bool {
        let prefix = name.split('.').next().unwrap_or(name);
        let part = Layer::ALL.into_iter().find(|part| part.name() == prefix);
        part.is_some_and(|part| self.contains(part))
    }

    /// The names of the trained parts.
    pub fn names(self) -> Vec<String> {
        let trained = Layer::ALL.into_iter().filter(|part| self.contains(*part));
        trained.map(|part| part.name().to_owned()).collect()
    }
}
