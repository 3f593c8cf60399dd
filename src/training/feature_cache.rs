//! Cache of the frozen layers' output for each image, filled by the first epoch.
//!
//! The frozen layers are a fixed function and most of the work. From the second epoch on no image
//! is decoded and only the trained layers compute. [`choose`] selects a location with enough space;
//! the size is known in advance ([`bytes_of_features`]).

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::model::{Error, layers::TrainableFrom, precision::Precision};

/// Requested location of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CachePolicy {
    /// The memory of a GPU that trains; else memory, disk or none, the first with enough space.
    Auto,
    Off,
    Memory,
    /// A mapped file in the work directory.
    Disk,
    /// Memory of the training device.
    Device,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheLocation {
    None,
    Memory,
    Disk,
    Device,
}

/// Size of the features of `images` images in bytes; `None` if too few layers are frozen to benefit
/// from a cache.
pub(super) fn bytes_of_features(
    trained: TrainableFrom,
    input_size: u32,
    precision: Precision,
    images: usize,
) -> Option<u64> {
    let shape = trained.feature_shape(input_size)?;
    let width = match precision {
        Precision::F32 | Precision::F16Weights => 4,
        Precision::Bf16 | Precision::F16 => 2,
    };
    let values: u64 = shape.iter().map(|side| u64::from(*side)).product();
    Some(values * width * images as u64)
}

/// Available space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AvailableSpace {
    /// Limit of the spec, if any.
    pub(super) budget: Option<u64>,
    /// Memory available without swapping, besides that of the training itself.
    pub(super) memory: u64,
    /// Free space on the disk of the work directory.
    pub(super) disk: u64,
}

/// Chooses a location for the cache, and explains the choice for the log.
///
/// Half of the free space is left to other users, such as the page cache.
pub(super) fn choose(
    policy: CachePolicy,
    device: Device,
    needed: u64,
    space: AvailableSpace,
) -> (CacheLocation, String) {
    let because = |location: CacheLocation, why: &str| {
        (location, format!("{} MB of features: {why}", needed >> 20))
    };
    if policy == CachePolicy::Off {
        return because(CacheLocation::None, "disabled by the spec");
    }
    if let Some(budget) = space.budget
        && needed > budget
    {
        let why = format!("over the budget of {} MB in the spec", budget >> 20);
        return because(CacheLocation::None, &why);
    }
    let fits_memory = needed <= space.memory / 2;
    let fits_disk = needed <= space.disk / 2;
    let free = format!(
        "{} MB of memory and {} MB of disk are free",
        space.memory >> 20,
        space.disk >> 20
    );
    match policy {
        CachePolicy::Device => because(CacheLocation::Device, "on the device, set by the spec"),
        CachePolicy::Auto if device != Device::Cpu => {
            because(CacheLocation::Device, "on the device")
        }
        CachePolicy::Memory if fits_memory => {
            because(CacheLocation::Memory, "in memory, set by the spec")
        }
        CachePolicy::Auto if fits_memory => {
            because(CacheLocation::Memory, &format!("in memory; {free}"))
        }
        CachePolicy::Disk if fits_disk => because(CacheLocation::Disk, "on disk, set by the spec"),
        CachePolicy::Auto if fits_disk => because(CacheLocation::Disk, &format!("on disk; {free}")),
        CachePolicy::Auto | CachePolicy::Memory | CachePolicy::Disk | CachePolicy::Off => {
            because(CacheLocation::None, &format!("not enough space: {free}"))
        }
    }
}

/// Features of a list of images, one row for each variant of an image.
#[derive(Debug)]
pub(super) struct FeatureCache {
    location: CacheLocation,
    device: Device,
    file: PathBuf,
    /// `[rows, H, W, C]`, so that a row is contiguous and a batch is channels last; allocated with
    /// the first batch.
    features: Option<Tensor>,
    /// By row.
    is_cached: Vec<bool>,
    is_complete: bool,
}

impl FeatureCache {
    /// Creates an empty cache with this many rows; `file` is used for [`CacheLocation::Disk`] only.
    pub(super) fn new(location: CacheLocation, device: Device, rows: usize, file: PathBuf) -> Self {
        FeatureCache {
            location,
            device,
            file,
            features: None,
            is_cached: vec![false; rows],
            is_complete: false,
        }
    }

    /// Returns whether the cache replaces the data loader.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns whether features are to be added.
    pub(super) fn is_incomplete(&self) -> bool {
        self.location != CacheLocation::None && !self.is_complete
    }

    /// Completes the cache after a pass over all images. Missing rows are unreadable images, which
    /// later passes skip.
    pub(super) fn complete(&mut self) {
        self.is_complete = self.location != CacheLocation::None && self.features.is_some();
    }

    pub(super) fn contains(&self, row: u32) -> bool {
        self.is_cached.get(row as usize) == Some(&true)
    }

    /// Adds the features `[N, C, H, W]` of these rows. A failed allocation is logged and disables
    /// the cache.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(super) fn insert(&mut self, rows: &[u32], features: &Tensor) -> Result<(), Error> {
        if !self.is_incomplete() || rows.is_empty() {
            return Ok(());
        }
        let values = features.f_detach()?.f_permute([0, 2, 3, 1])?;
        if self.features.is_none() {
            match self.allocate(&values) {
                Ok(allocated) => self.features = Some(allocated),
                Err(error) => {
                    tracing::warn!(%error, "failed to allocate the feature cache; every epoch computes all features");
                    self.location = CacheLocation::None;
                    return Ok(());
                }
            }
        }
        if let Some(cached) = &mut self.features {
            let positions = positions(rows).f_to_device(cached.device())?;
            let values = values.f_to_device(cached.device())?;
            tch::no_grad(|| cached.f_index_copy_(0, &positions, &values).map(drop))?;
            for &row in rows {
                self.is_cached[row as usize] = true;
            }
        }
        Ok(())
    }

    /// Returns the features of these rows, `[N, C, H, W]`, on the training device. All must be
    /// cached.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(super) fn gather(&self, rows: &[u32]) -> Result<Option<Tensor>, Error> {
        let Some(cached) = &self.features else {
            return Ok(None);
        };
        let positions = positions(rows).f_to_device(cached.device())?;
        let values = cached.f_index_select(0, &positions)?;
        let values = values.f_to_device(self.device)?;
        Ok(Some(values.f_permute([0, 3, 1, 2])?))
    }

    /// Allocates all rows in the shape and number format of a first batch.
    fn allocate(&self, batch: &Tensor) -> Result<Tensor, Error> {
        let mut shape = batch.size();
        shape[0] = self.is_cached.len() as i64;
        let kind = batch.kind();
        match self.location {
            CacheLocation::Disk => {
                let values: i64 = shape.iter().product();
                let bytes = values as u64 * if kind == Kind::Float { 4 } else { 2 };
                let file = fs_err::File::create(&self.file)?;
                // A write to a mapped file on a full disk would kill the process.
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
                    .map_err(std::io::Error::from)?;
                let path = self.file.to_string_lossy();
                let mapped = Tensor::f_from_file(&path, true, values, (kind, Device::Cpu))?;
                Ok(mapped.f_view(shape.as_slice())?)
            }
            CacheLocation::Device => Ok(Tensor::f_empty(&shape, (kind, self.device))?),
            CacheLocation::Memory | CacheLocation::None => {
                Ok(Tensor::f_empty(&shape, (kind, Device::Cpu))?)
            }
        }
    }
}

fn positions(rows: &[u32]) -> Tensor {
    let positions: Vec<i64> = rows.iter().map(|row| i64::from(*row)).collect();
    Tensor::from_slice(&positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn location_follows_the_spec_and_the_available_space() {
        let space = |memory: u64, disk: u64| AvailableSpace {
            budget: None,
            memory: memory * GB,
            disk: disk * GB,
        };
        let location = |policy, device, space| choose(policy, device, 2 * GB, space).0;
        use CachePolicy::{Auto, Disk, Memory, Off};
        assert_eq!(
            location(Auto, Device::Cpu, space(8, 8)),
            CacheLocation::Memory
        );
        assert_eq!(
            location(Auto, Device::Cpu, space(3, 8)),
            CacheLocation::Disk
        );
        assert_eq!(
            location(Auto, Device::Cpu, space(3, 3)),
            CacheLocation::None
        );
        assert_eq!(
            location(Auto, Device::Cuda(0), space(8, 8)),
            CacheLocation::Device
        );
        assert_eq!(location(Off, Device::Cpu, space(8, 8)), CacheLocation::None);
        assert_eq!(
            location(Disk, Device::Cpu, space(8, 8)),
            CacheLocation::Disk
        );
        assert_eq!(
            location(Memory, Device::Cpu, space(3, 8)),
            CacheLocation::None
        );
        let budget = AvailableSpace {
            budget: Some(GB),
            ..space(8, 8)
        };
        let (found, why) = choose(Auto, Device::Cpu, 2 * GB, budget);
        assert_eq!(found, CacheLocation::None);
        assert!(why.contains("budget of 1024 MB"), "{why}");
    }

    #[test]
    fn rows_are_gathered_as_they_were_inserted_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        for location in [CacheLocation::Memory, CacheLocation::Disk] {
            let file = directory.path().join("features");
            let mut cache = FeatureCache::new(location, Device::Cpu, 4, file);
            let batch =
                Tensor::arange(2 * 3 * 2 * 2, (Kind::Float, Device::Cpu)).view([2, 3, 2, 2]);
            cache.insert(&[3, 0], &batch).unwrap();
            cache.insert(&[2], &(batch.narrow(0, 0, 1) + 100)).unwrap();
            assert!(!cache.is_complete());
            cache.complete();
            assert!(cache.is_complete());
            let cached: Vec<bool> = (0..4).map(|row| cache.contains(row)).collect();
            assert_eq!(cached, [true, false, true, true]);
            let found = cache.gather(&[0, 2, 3]).unwrap().unwrap();
            let expected = Tensor::cat(
                &[
                    batch.narrow(0, 1, 1),
                    batch.narrow(0, 0, 1) + 100,
                    batch.narrow(0, 0, 1),
                ],
                0,
            );
            assert_eq!(found, expected, "{location:?}");
        }
    }

    #[test]
    fn cache_without_a_location_stays_empty() {
        let mut cache = FeatureCache::new(CacheLocation::None, Device::Cpu, 1, PathBuf::new());
        cache
            .insert(
                &[0],
                &Tensor::zeros([1, 1, 1, 1], (Kind::Float, Device::Cpu)),
            )
            .unwrap();
        cache.complete();
        assert!(!cache.is_complete() && !cache.contains(0));
        assert!(cache.gather(&[0]).unwrap().is_none());
    }
}
