//! The file format of the parameters, SeetaFace's: little-endian, in the order of the cascade.

use super::{
    boosted::{self, BoostedClassifier},
    network::{self, Layer, Network},
};

/// The parameters of all stages.
#[derive(Debug)]
pub(super) struct Model {
    /// Each sees every window; windows that any of them accepts are kept.
    pub(super) boosted: Vec<BoostedClassifier>,
    /// In the order of their use.
    pub(super) networks: Vec<Network>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the file ends at byte {0}, within a number")]
    Short(usize),
    #[error("byte {at}: {what}")]
    Unknown { at: usize, what: String },
}

impl Model {
    /// Reads the whole file.
    ///
    /// # Errors
    /// A file that is truncated, too long, or has other stages than the frontal detector.
    pub(super) fn read(file: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader { file, at: 0 };
        let mut model = Model {
            boosted: Vec::new(),
            networks: Vec::new(),
        };
        for stage in 0..reader.count()? {
            let groups = reader.count()?;
            for _ in 0..groups {
                for _ in 0..reader.count()? {
                    match reader.count()? {
                        0 if stage == 0 => model.boosted.push(reader.boosted()?),
                        1 if stage > 0 && groups == 1 => model.networks.push(reader.network()?),
                        kind => return Err(reader.unknown(format!("kind {kind} in stage {stage}"))),
                    }
                }
                // Indices of the groups of the previous stage that it takes windows from, or -1:
                // always all in this file.
                for _ in 0..i32::from_le_bytes(reader.word()?) {
                    reader.count()?;
                }
            }
        }
        let is_whole = reader.at == file.len();
        let has_all = !model.boosted.is_empty() && !model.networks.is_empty();
        if !is_whole || !has_all {
            return Err(reader.unknown("the file must end after all stages".to_owned()));
        }
        Ok(model)
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Result<[u8; 4], Error> {
        let rest = self.file.get(self.at..).unwrap_or_default();
        let word = rest.first_chunk::<4>().ok_or(Error::Short(self.at))?;
        self.at += 4;
        Ok(*word)
    }

    fn unknown(&self, what: String) -> Error {
        Error::Unknown { at: self.at, what }
    }

    /// Reads a number from 0 to the length of the file.
    fn count(&mut self) -> Result<usize, Error> {
        let count = i32::from_le_bytes(self.word()?);
        match usize::try_from(count) {
            Ok(count) if count <= self.file.len() => Ok(count),
            _ => Err(self.unknown(format!("{count} is not a valid count"))),
        }
    }

    fn float(&mut self) -> Result<f32, Error> {
        Ok(f32::from_le_bytes(self.word()?))
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, Error> {
        (0..count).map(|_| self.float()).collect()
    }

    fn boosted(&mut self) -> Result<BoostedClassifier, Error> {
        let (features, bins) = (self.count()?, self.count()?);
        if features % boosted::GROUP != 0 || bins != 255 {
            return Err(self.unknown(format!("{features} features of {bins} bins")));
        }
        let mut positions = Vec::with_capacity(features);
        for _ in 0..features {
            let position = (self.count()?, self.count()?);
            if position.0.max(position.1) > boosted::LAST_PLACE {
                return Err(self.unknown(format!("a feature at {position:?}")));
            }
            positions.push(position);
        }
        let thresholds = self.floats(features)?;
        let weights = self.floats(features * 256)?;
        Ok(BoostedClassifier::new(positions, thresholds, weights))
    }

    fn network(&mut self) -> Result<Network, Error> {
        let (layers, features) = (self.count()?, self.count()?);
        let mut patches = Vec::with_capacity(features);
        for _ in 0..features {
            // Counted from 1.
            let number = self.count()?;
            let patch = number
                .checked_sub(1)
                .and_then(|index| network::patches().get(index));
            patches.push(
                *patch.ok_or_else(|| self.unknown(format!("feature {number} does not exist")))?,
            );
        }
        let threshold = self.float()?;
        let mut inputs = self.count()?;
        if inputs != features * network::VALUES_OF_PATCH {
            return Err(self.unknown(format!("{inputs} inputs of {features} features")));
        }
        let mut read = Vec::with_capacity(layers);
        for _ in 1..layers {
            let outputs = self.count()?;
            let size = inputs.saturating_mul(outputs);
            if size > self.file.len() {
                return Err(self.unknown(format!("a layer of {inputs} times {outputs}")));
            }
            read.push(Layer {
                inputs,
                weights: self.floats(size)?,
                biases: self.floats(outputs)?,
            });
            inputs = outputs;
        }
        if read.len() < 2 || inputs != network::OUTPUTS {
            return Err(self.unknown(format!("a network with {inputs} outputs")));
        }
        Ok(Network::new(patches, threshold, read))
    }
}
