//! The layers of the network, and which of them train.

use super::Error;

/// The layers in the order of the forward pass, with torchvision's names. Each trains as a whole or
/// not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// The 7×7 convolution of the input.
    Conv1,
    Bn1,
    /// Two blocks of 64 channels.
    Layer1,
    /// Two blocks of 128 channels.
    Layer2,
    /// Two blocks of 256 channels.
    Layer3,
    /// Two blocks of 512 channels.
    Layer4,
    /// The linear head, 512 to 1.
    Fc,
}

impl Layer {
    pub(crate) const ALL: [Layer; 7] = [
        Layer::Conv1,
        Layer::Bn1,
        Layer::Layer1,
        Layer::Layer2,
        Layer::Layer3,
        Layer::Layer4,
        Layer::Fc,
    ];

    /// The layers that consist of residual blocks.
    pub(super) const WITH_BLOCKS: [Layer; 4] =
        [Layer::Layer1, Layer::Layer2, Layer::Layer3, Layer::Layer4];

    /// The prefix of its tensors' names.
    pub(crate) fn name(self) -> &'static str {
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

/// The trainable layers: one layer and all that follow it. The layers before it are frozen.
///
/// Gradients flow backward from the output, so a frozen layer behind a trainable one would save
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrainableFrom {
    first: Layer,
}

impl TrainableFrom {
    /// layer4 and fc.
    pub(crate) const DEFAULT: TrainableFrom = TrainableFrom {
        first: Layer::Layer4,
    };

    /// fc only, the minimum; also for networks that only predict.
    pub(crate) const HEAD: TrainableFrom = TrainableFrom { first: Layer::Fc };

    /// Parses names such as `["layer4", "fc"]` or `["ALL"]`.
    ///
    /// # Errors
    /// [`Error::Trainable`] for an unknown name, no names, or a gap before the head.
    pub(crate) fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Error> {
        let known = || Layer::ALL.map(Layer::name).join(", ");
        let mut requested = Vec::new();
        for name in names {
            let name = name.as_ref();
            if name.eq_ignore_ascii_case("all") {
                return Ok(TrainableFrom {
                    first: Layer::Conv1,
                });
            }
            let layer = Layer::ALL.into_iter().find(|layer| layer.name() == name);
            requested.push(layer.ok_or_else(|| {
                Error::Trainable(format!(
                    "must be layers of the network, got {name:?}; the layers are {}, and ALL",
                    known()
                ))
            })?);
        }
        let first = requested.iter().min().copied().ok_or_else(|| {
            Error::Trainable(format!(
                "must name at least one layer; the layers are {}, and ALL",
                known()
            ))
        })?;
        let gap = Layer::ALL
            .into_iter()
            .find(|layer| *layer > first && !requested.contains(layer));
        if let Some(gap) = gap {
            return Err(Error::Trainable(format!(
                "must not leave gaps: {first} trains but {gap}, which follows it, does not; add {gap} or leave {first} out",
                first = first.name(),
                gap = gap.name(),
            )));
        }
        Ok(TrainableFrom { first })
    }

    pub(crate) fn contains(self, layer: Layer) -> bool {
        layer >= self.first
    }

    /// Returns whether the parameter or buffer of this name belongs to a trainable layer.
    pub(crate) fn contains_name(self, name: &str) -> bool {
        let prefix = name.split('.').next().unwrap_or(name);
        let layer = Layer::ALL.into_iter().find(|layer| layer.name() == prefix);
        layer.is_some_and(|layer| self.contains(layer))
    }

    /// The names of the trainable layers.
    pub(crate) fn names(self) -> Vec<String> {
        let trainable = Layer::ALL.into_iter().filter(|layer| self.contains(*layer));
        trainable.map(|layer| layer.name().to_owned()).collect()
    }

    /// Channels, height and width of the output of the frozen layers for images of this side;
    /// `None` if no residual block and not both conv1 and bn1 are frozen, so that there is nothing
    /// worth caching.
    pub(crate) fn feature_shape(self, input_size: u32) -> Option<[u32; 3]> {
        // conv1 and the pooling behind bn1 halve the side, and so does each layer but the first.
        let (channels, halvings) = match self.first {
            Layer::Conv1 | Layer::Bn1 => return None,
            Layer::Layer1 | Layer::Layer2 => (64, 2),
            Layer::Layer3 => (128, 3),
            Layer::Layer4 => (256, 4),
            Layer::Fc => (512, 5),
        };
        let side = (0..halvings).fold(input_size, |side, _| side.div_ceil(2));
        Some([channels, side, side])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainable_layers_reach_the_head_without_a_gap() {
        let error = |names: &[&str]| TrainableFrom::parse(names).unwrap_err().to_string();
        let parsed = TrainableFrom::parse(&["fc", "layer4"]).unwrap();
        assert_eq!(parsed, TrainableFrom::DEFAULT);
        assert_eq!(TrainableFrom::parse(&["ALL"]).unwrap().names().len(), 7);
        assert_eq!(
            error(&["layer3", "fc"]),
            "trainable layers must not leave gaps: layer3 trains but layer4, which follows it, does not; add layer4 or leave layer3 out"
        );
        assert_eq!(
            error(&["layer5"]),
            "trainable layers must be layers of the network, got \"layer5\"; the layers are conv1, bn1, layer1, layer2, layer3, layer4, fc, and ALL"
        );
        assert!(error(&[]).contains("at least one layer"));
    }
}
