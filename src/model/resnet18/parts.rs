//! The parts of the network, and which of them are trained.

use crate::model::Error;

/// The network's parts in the order in which an image passes through them; each is trained whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
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

impl Part {
    /// All parts in order.
    pub const ALL: [Part; 7] = [
        Part::Conv1,
        Part::Bn1,
        Part::Layer1,
        Part::Layer2,
        Part::Layer3,
        Part::Layer4,
        Part::Fc,
    ];

    /// The prefix of its parameters' names.
    pub fn name(self) -> &'static str {
        match self {
            Part::Conv1 => "conv1",
            Part::Bn1 => "bn1",
            Part::Layer1 => "layer1",
            Part::Layer2 => "layer2",
            Part::Layer3 => "layer3",
            Part::Layer4 => "layer4",
            Part::Fc => "fc",
        }
    }
}

/// The trained parts: `first` and all that follow. What lies before is frozen.
///
/// Gradients flow backward from the output, so a frozen part behind a trained one would cost as much as a trained one and save nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trained {
    pub(super) first: Part,
}

impl Trained {
    /// layer4 and fc.
    pub const DEFAULT: Trained = Trained {
        first: Part::Layer4,
    };

    /// fc alone, as little as can be trained; for networks that are not trained at all too.
    pub const HEAD: Trained = Trained { first: Part::Fc };

    /// Reads names such as `["layer4", "fc"]` or `["ALL"]`.
    ///
    /// # Errors
    /// A name that is no part, no name at all, or parts that do not reach to the head without a gap.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Error> {
        let known = || {
            let names: Vec<_> = Part::ALL.iter().map(|part| part.name()).collect();
            names.join(", ")
        };
        let mut wanted = Vec::new();
        for name in names {
            let name = name.as_ref();
            if name.eq_ignore_ascii_case("all") {
                return Ok(Trained { first: Part::Conv1 });
            }
            let part = Part::ALL.into_iter().find(|part| part.name() == name);
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
        let gap = Part::ALL
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
        Ok(Trained { first })
    }

    /// Whether the part is trained.
    pub fn contains(self, part: Part) -> bool {
        part >= self.first
    }

    /// Whether the parameter or buffer of this name belongs to a trained part.
    pub fn contains_name(self, name: &str) -> bool {
        let prefix = name.split('.').next().unwrap_or(name);
        let part = Part::ALL.into_iter().find(|part| part.name() == prefix);
        part.is_some_and(|part| self.contains(part))
    }

    /// The names of the trained parts.
    pub fn names(self) -> Vec<String> {
        let trained = Part::ALL.into_iter().filter(|part| self.contains(*part));
        trained.map(|part| part.name().to_owned()).collect()
    }
}
