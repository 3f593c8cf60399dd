//! Running statistics of the trained BatchNorms.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use crate::model::{Error, moments::joined, resnet18::TrainableFrom};

/// torchvision's default, as in the forward pass of a single shard.
const MOMENTUM: f64 = 0.1;

/// The running statistics, shared with the network.
#[derive(Debug)]
pub(crate) struct RunningStatistics {
    norms: Vec<Norm>,
}

#[derive(Debug)]
struct Norm {
    mean: Tensor,
    /// Unbiased.
    variance: Tensor,
    /// Number of updates.
    batches: Tensor,
    /// Pixels of an image in this layer.
    pixels: f64,
}

impl RunningStatistics {
    /// Finds the trained BatchNorms in the state of a network for images of this side.
    pub(crate) fn new(
        state: &BTreeMap<String, Tensor>,
        trained: TrainableFrom,
        input_size: u32,
    ) -> Self {
        let names = state.keys().filter(|name| trained.contains_name(name));
        let names = names.filter_map(|name| name.strip_suffix(".running_mean"));
        let norm = |name: &str| {
            let field = |field: &str| state[&format!("{name}.{field}")].shallow_clone();
            let side = side(name, input_size);
            Norm {
                mean: field("running_mean"),
                variance: field("running_var"),
                batches: field("num_batches_tracked"),
                pixels: f64::from(side) * f64::from(side),
            }
        };
        RunningStatistics {
            norms: names.map(norm).collect(),
        }
    }

    /// Returns all means and variances, in the order of the names.
    ///
    /// # Errors
    /// A failure of libtorch.
    pub(crate) fn read(&self) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        for norm in &self.norms {
            for tensor in [&norm.mean, &norm.variance] {
                values.extend(Vec::<f32>::try_from(tensor.f_to_device(Device::Cpu)?)?);
            }
        }
        Ok(values)
    }

    /// Replaces all means and variances.
    ///
    /// # Errors
    /// A failure of libtorch.
    pub(crate) fn write(&mut self, values: &[f32]) -> Result<(), Error> {
        let mut rest = values;
        for norm in &mut self.norms {
            for tensor in [&mut norm.mean, &mut norm.variance] {
                let (own, later) = rest.split_at(tensor.numel());
                rest = later;
                let own = Tensor::f_from_slice(own)?;
                tch::no_grad(|| tensor.f_copy_(&own))?;
            }
        }
        Ok(())
    }

    /// Updates the statistics from those before the step by the pooled statistics of the shards:
    /// number of images, and means and variances in the layout of [`RunningStatistics::read`].
    ///
    /// # Errors
    /// A failure of libtorch.
    pub(crate) fn update(&mut self, before: &[f32], shards: &[(u64, &[f32])]) -> Result<(), Error> {
        let mut values = before.to_vec();
        let mut start = 0;
        for norm in &mut self.norms {
            let channels = norm.mean.numel();
            for (mean, variance) in (start..start + channels).map(|mean| (mean, mean + channels)) {
                let of_shard = |(images, values): &(u64, &[f32])| {
                    let count = *images as f64 * norm.pixels;
                    let squares = f64::from(values[variance]) * (count - 1.0);
                    (count, f64::from(values[mean]), squares)
                };
                let all = shards.iter().map(of_shard);
                let (count, pooled, squares) = all.fold((0.0, 0.0, 0.0), joined);
                let moved = |running: f32, value: f64| {
                    (f64::from(running) + MOMENTUM * (value - f64::from(running))) as f32
                };
                values[mean] = moved(before[mean], pooled);
                values[variance] = moved(before[variance], squares / (count - 1.0));
            }
            start += 2 * channels;
            tch::no_grad(|| norm.batches.f_add_scalar_(1).map(drop))?;
        }
        self.write(&values)
    }
}

/// Side in pixels of the output of a BatchNorm of this name.
fn side(name: &str, input_size: u32) -> u32 {
    // conv1 and the pooling behind bn1 halve the side, and so does each layer but the first.
    let halvings = match name.split('.').next() {
        Some("layer1") => 2,
        Some("layer2") => 3,
        Some("layer3") => 4,
        Some("layer4") => 5,
        Some(_) | None => 1,
    };
    (0..halvings).fold(input_size, |side, _| side.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// The reference is libtorch's BatchNorm on the whole batch.
    #[test]
    fn pooled_statistics_are_those_of_the_whole_batch() {
        let (input_size, channels, images) = (64, 3, 8);
        let side = i64::from(side("layer4.0.bn1", input_size));
        tch::manual_seed(7);
        let input =
            Tensor::randn([images, channels, side, side], (Kind::Float, Device::Cpu)) * 3.0 + 1.5;
        let normalise = |input: &Tensor, mean: &Tensor, variance: &Tensor, momentum: f64| {
            let none: Option<Tensor> = None;
            input.batch_norm(
                none.as_ref(),
                none.as_ref(),
                Some(mean),
                Some(variance),
                true,
                momentum,
                1e-5,
                false,
            )
        };
        let start = || {
            let options = (Kind::Float, Device::Cpu);
            [
                Tensor::full([channels], 0.5, options),
                Tensor::full([channels], 2.0, options),
            ]
        };
        let expected = start();
        drop(normalise(&input, &expected[0], &expected[1], 0.1));

        let [mean, variance] = start();
        let state: BTreeMap<String, Tensor> = [
            ("running_mean", mean),
            ("running_var", variance),
            ("num_batches_tracked", Tensor::from(4_i64)),
        ]
        .into_iter()
        .map(|(field, tensor)| (format!("layer4.0.bn1.{field}"), tensor))
        .collect();
        let mut running = RunningStatistics::new(&state, TrainableFrom::DEFAULT, input_size);
        let before = running.read().unwrap();
        assert_eq!(before, [0.5, 0.5, 0.5, 2.0, 2.0, 2.0]);
        let mut shards = Vec::new();
        for (first, count) in [(0, 3), (3, 4), (7, 1)] {
            let part = input.narrow(0, first, count);
            let (mean, variance) = (
                &state["layer4.0.bn1.running_mean"],
                &state["layer4.0.bn1.running_var"],
            );
            drop(normalise(&part, mean, variance, 1.0));
            shards.push((count as u64, running.read().unwrap()));
        }
        let shards: Vec<(u64, &[f32])> = shards
            .iter()
            .map(|(count, values)| (*count, values.as_slice()))
            .collect();
        running.update(&before, &shards).unwrap();
        for (found, expected) in ["running_mean", "running_var"].iter().zip(&expected) {
            let found = &state[&format!("layer4.0.bn1.{found}")];
            let apart = (found - expected).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{apart}");
        }
        assert_eq!(
            state["layer4.0.bn1.num_batches_tracked"].int64_value(&[]),
            5
        );
    }

    #[test]
    fn only_trained_norms_are_found_with_the_sides_of_their_layers() {
        let names = [
            "bn1",
            "layer3.1.bn2",
            "layer4.0.downsample.1",
            "layer4.1.bn1",
        ];
        let state: BTreeMap<String, Tensor> = names
            .into_iter()
            .flat_map(|name| {
                ["running_mean", "running_var", "num_batches_tracked"]
                    .map(|field| (format!("{name}.{field}"), Tensor::from_slice(&[0.0_f32])))
            })
            .collect();
        let found = RunningStatistics::new(&state, TrainableFrom::DEFAULT, 224);
        let pixels: Vec<f64> = found.norms.iter().map(|norm| norm.pixels).collect();
        assert_eq!(pixels, [49.0, 49.0]);
        assert_eq!(side("bn1", 224), 112);
        assert_eq!(side("layer3.1.bn2", 224), 14);
    }
}
