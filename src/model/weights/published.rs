//! Published weights files and their digests.

use std::path::Path;

/// SHA-256 of torchvision's `resnet18-f37072fd.pth` (46,830,571 bytes).
pub(crate) const TORCHVISION_SHA256: &str =
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec";
/// SHA-256 of `model.safetensors` (46,807,446 bytes) in the hub's `timm/resnet18.tv_in1k`, the same
/// weights.
pub(crate) const TIMM_SHA256: &str =
    "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81";

/// The name under which torchvision publishes and caches the weights.
pub(super) const TORCHVISION_FILE: &str = "resnet18-f37072fd.pth";

/// File names of ResNet18 on torch hub, each with the leading digits of the file's SHA-256.
const TORCH_HUB_FILES: [(&str, &str); 4] = [
    (TORCHVISION_FILE, TORCHVISION_SHA256),
    ("resnet18-5c106cde.pth", "5c106cde"),
    ("semi_supervised_resnet18-d92f0530.pth", "d92f0530"),
    ("semi_weakly_supervised_resnet18-118f1556.pth", "118f1556"),
];

/// Returns true for the SHA-256 of a file with torchvision's ImageNet weights.
pub(crate) fn is_imagenet(sha256: &str) -> bool {
    [TORCHVISION_SHA256, TIMM_SHA256].contains(&sha256)
}

/// The leading digits of the SHA-256 that a published file name promises. Digits in any other name
/// are a date, a step or a choice of its owner.
pub(super) fn promised_digest(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?;
    let published = TORCH_HUB_FILES
        .iter()
        .find(|(published, _)| name == *published);
    published.map(|(_, digest)| *digest)
}
