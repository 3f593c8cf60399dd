//! Names and shapes of the network's tensors, as in torchvision.

use super::layers::Layer;

/// BatchNorm's batch counters, which files from before torch 0.4.1 lack and inference ignores.
pub(super) const COUNTER_SUFFIX: &str = ".num_batches_tracked";
pub(super) const HEAD_PREFIX: &str = "fc.";

/// Output channels of layer1 to layer4; layer1 has as many inputs.
pub(super) const CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// Names and shapes of all parameters and buffers of a network with this many outputs, in
/// torchvision's order.
pub(crate) fn layout(outputs: usize) -> Vec<(String, Vec<usize>)> {
    let mut entries = Vec::new();
    push_conv(&mut entries, "conv1", &[64, 3, 7, 7]);
    push_batch_norm(&mut entries, "bn1", 64);
    let mut inputs = CHANNELS[0];
    for (layer, channels) in Layer::WITH_BLOCKS.into_iter().zip(CHANNELS) {
        for block in 0..2 {
            let unit = |part: &str| format!("{}.{block}.{part}", layer.name());
            push_conv(&mut entries, &unit("conv1"), &[channels, inputs, 3, 3]);
            push_batch_norm(&mut entries, &unit("bn1"), channels);
            push_conv(&mut entries, &unit("conv2"), &[channels, channels, 3, 3]);
            push_batch_norm(&mut entries, &unit("bn2"), channels);
            if inputs != channels {
                let downsample = unit("downsample.0");
                push_conv(&mut entries, &downsample, &[channels, inputs, 1, 1]);
                push_batch_norm(&mut entries, &unit("downsample.1"), channels);
            }
            inputs = channels;
        }
    }
    entries.push(("fc.weight".to_owned(), vec![outputs, 512]));
    entries.push(("fc.bias".to_owned(), vec![outputs]));
    entries
}

/// Returns whether the entry is learned by gradient, as opposed to a running statistic.
pub(crate) fn is_parameter(name: &str) -> bool {
    name.ends_with(".weight") || name.ends_with(".bias")
}

fn push_conv(entries: &mut Vec<(String, Vec<usize>)>, name: &str, shape: &[usize]) {
    entries.push((format!("{name}.weight"), shape.to_vec()));
}

fn push_batch_norm(entries: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize) {
    for field in ["weight", "bias", "running_mean", "running_var"] {
        entries.push((format!("{name}.{field}"), vec![channels]));
    }
    entries.push((format!("{name}{COUNTER_SUFFIX}"), Vec::new()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::TrainableFrom;

    #[test]
    fn the_layout_is_torchvisions() {
        let count = |outputs: usize, is_counted: &dyn Fn(&str) -> bool| -> usize {
            let layout = layout(outputs);
            assert_eq!(layout.len(), 122);
            let counted = layout.iter().filter(|(name, _)| is_counted(name));
            counted
                .map(|(_, shape)| shape.iter().product::<usize>())
                .sum()
        };
        // Counted with torchvision.models.resnet18(num_classes=1), and by torchvision's
        // documentation of ResNet18_Weights.IMAGENET1K_V1.
        assert_eq!(count(1, &is_parameter), 11_177_025);
        assert_eq!(count(1000, &is_parameter), 11_689_512);
        let is_trainable =
            |name: &str| is_parameter(name) && TrainableFrom::DEFAULT.contains_name(name);
        assert_eq!(count(1, &is_trainable), 8_393_728 + 513);
    }
}
