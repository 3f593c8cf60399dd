//! What the frozen layers make of each image, kept from the first epoch on.
//!
//! The frozen layers are a fixed function, and most of the work: from the second epoch on nothing is decoded and only the trained layers
//! compute. Where the features lie is chosen by what there is room for; how large they are is known before ([`bytes_of_features`]).

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::model::{
    Error,
    precision::Precision,
    resnet18::{TrainableFrom, feature_shape},
};

/// What a spec says about the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// In memory if it fits, else on disk if it fits there, else not at all; on a GPU in its own memory first.
    Auto,
    /// Not at all: decode and compute everything in every epoch.
    Off,
    /// In memory.
    Memory,
    /// In a file of the training's directory, mapped into memory.
    Disk,
    /// In the memory of the device that trains.
    Device,
}

/// Where features are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere.
    Nowhere,
    /// Memory of the process.
    Memory,
    /// A mapped file.
    Disk,
    /// Memory of the device.
    Device,
}

/// Bytes that the features of so many images take; `None` when nothing that is worth keeping is frozen.
pub fn bytes_of_features(
    trained: TrainableFrom,
    input_size: u32,
    precision: Precision,
    images: usize,
) -> Option<u64> {
    let shape = feature_shape(trained, input_size)?;
    let width = match precision {
        Precision::F32 | Precision::F16Weights => 4,
        Precision::Bf16 | Precision::F16 => 2,
    };
    let values: u64 = shape.iter().map(|side| u64::from(*side)).product();
    Some(values * width * images as u64)
}

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of the spec; `None` without a limit of its own.
    pub budget: Option<u64>,
    /// Memory that can be had without swapping, beside what the training itself takes.
    pub memory: u64,
    /// On the disk of the training's directory.
    pub disk: u64,
}

/// Chooses a place for this many bytes, and says why in a sentence for the log.
///
/// Half of what is free is left to others, the page cache among them.
pub fn choose(policy: CachePolicy, device: Device, needed: u64, room: Room) -> (Place, String) {
    let say = |place: Place, why: &str| (place, format!("{} MB of features: {why}", needed >> 20));
    if policy == CachePolicy::Off {
        return say(Place::Nowhere, "the spec wants no cache");
    }
    if let Some(budget) = room.budget
        && needed > budget
    {
        let why = format!("more than the spec's budget of {} MB", budget >> 20);
        return say(Place::Nowhere, &why);
    }
    let fits_memory = needed <= room.memory / 2;
    let fits_disk = needed <= room.disk / 2;
    let free = format!(
        "{} MB of memory and {} MB of disk are free",
        room.memory >> 20,
        room.disk >> 20
    );
    match policy {
        CachePolicy::Device => say(Place::Device, "on the device, as the spec wants"),
        CachePolicy::Auto if device != Device::Cpu => say(Place::Device, "on the device"),
        CachePolicy::Memory if fits_memory => say(Place::Memory, "in memory, as the spec wants"),
        CachePolicy::Auto if fits_memory => say(Place::Memory, &format!("in memory; {free}")),
        CachePolicy::Disk if fits_disk => say(Place::Disk, "on disk, as the spec wants"),
        CachePolicy::Auto if fits_disk => say(Place::Disk, &format!("on disk; {free}")),
        CachePolicy::Auto | CachePolicy::Memory | CachePolicy::Disk | CachePolicy::Off => {
            say(Place::Nowhere, &format!("no room: {free}"))
        }
    }
}

/// The features of one list of images; where there are variants of each, one image has several places in the list.
#[derive(Debug)]
pub struct FeatureCache {
    place: Place,
    device: Device,
    file: PathBuf,
    /// `[images, H, W, C]`, so that an image is one piece of memory and a batch lies channels last; made with the first batch.
    features: Option<Tensor>,
    /// By position in the list.
    is_kept: Vec<bool>,
    is_complete: bool,
}

impl FeatureCache {
    /// A cache for this many images that holds none; `file` is used on disk only.
    pub fn new(place: Place, device: Device, images: usize, file: PathBuf) -> Self {
        FeatureCache {
            place,
            device,
            file,
            features: None,
            is_kept: vec![false; images],
            is_complete: false,
        }
    }

    /// Whether a pass over all images has been kept.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether features are still to be kept.
    pub fn wants_more(&self) -> bool {
        self.place != Place::Nowhere && !self.is_complete
    }

    /// To be called after a pass over all images: those that are missing could not be read and are left out from now on.
    pub fn complete(&mut self) {
        self.is_complete = self.place != Place::Nowhere && self.features.is_some();
    }

    /// Whether this image is kept.
    pub fn has(&self, index: u32) -> bool {
        self.is_kept.get(index as usize) == Some(&true)
    }

    /// Keeps a batch's features `[N, C, H, W]`, which belong to these positions in the list.
    ///
    /// When there is no room after all, that is logged, and nothing is kept from then on.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn keep(&mut self, indices: &[u32], features: &Tensor) -> Result<(), Error> {
        if !self.wants_more() || indices.is_empty() {
            return Ok(());
        }
        let rows = features.f_detach()?.f_permute([0, 2, 3, 1])?;
        if self.features.is_none() {
            match self.allocate(&rows) {
                Ok(made) => self.features = Some(made),
                Err(error) => {
                    tracing::warn!(%error, "no room for the feature cache after all: every epoch computes everything");
                    self.place = Place::Nowhere;
                    return Ok(());
                }
            }
        }
        if let Some(kept) = &mut self.features {
            let positions = positions(indices).f_to_device(kept.device())?;
            let rows = rows.f_to_device(kept.device())?;
            tch::no_grad(|| kept.f_index_copy_(0, &positions, &rows).map(drop))?;
            for &index in indices {
                self.is_kept[index as usize] = true;
            }
        }
        Ok(())
    }

    /// The features of these images, `[N, C, H, W]`, on the device that trains. All must be kept.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn gather(&self, indices: &[u32]) -> Result<Option<Tensor>, Error> {
        let Some(kept) = &self.features else {
            return Ok(None);
        };
        let positions = positions(indices).f_to_device(kept.device())?;
        let rows = kept.f_index_select(0, &positions)?;
        let rows = rows.f_to_device(self.device)?;
        Ok(Some(rows.f_permute([0, 3, 1, 2])?))
    }

    fn allocate(&self, rows: &Tensor) -> Result<Tensor, Error> {
        let mut shape = rows.size();
        shape[0] = self.is_kept.len() as i64;
        let kind = rows.kind();
        match self.place {
            Place::Disk => {
                let values: i64 = shape.iter().product();
                let bytes = values as u64 * if kind == Kind::Float { 4 } else { 2 };
                let file = fs_err::File::create(&self.file)?;
                // Writing to a mapped file on a full disk would end the process, so the room is taken now.
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
                    .map_err(std::io::Error::from)?;
                let path = self.file.to_string_lossy();
                let mapped = Tensor::f_from_file(&path, true, values, (kind, Device::Cpu))?;
                Ok(mapped.f_view(shape.as_slice())?)
            }
            Place::Device => Ok(Tensor::f_empty(&shape, (kind, self.device))?),
            Place::Memory | Place::Nowhere => Ok(Tensor::f_empty(&shape, (kind, Device::Cpu))?),
        }
    }
}

fn positions(indices: &[u32]) -> Tensor {
    let positions: Vec<i64> = indices.iter().map(|index| i64::from(*index)).collect();
    Tensor::from_slice(&positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn place_follows_the_spec_and_what_there_is_room_for() {
        let room = |memory: u64, disk: u64| Room {
            budget: None,
            memory: memory * GB,
            disk: disk * GB,
        };
        let place = |policy, device, room| choose(policy, device, 2 * GB, room).0;
        use CachePolicy::{Auto, Disk, Memory, Off};
        assert_eq!(place(Auto, Device::Cpu, room(8, 8)), Place::Memory);
        assert_eq!(place(Auto, Device::Cpu, room(3, 8)), Place::Disk);
        assert_eq!(place(Auto, Device::Cpu, room(3, 3)), Place::Nowhere);
        assert_eq!(place(Auto, Device::Cuda(0), room(8, 8)), Place::Device);
        assert_eq!(place(Off, Device::Cpu, room(8, 8)), Place::Nowhere);
        assert_eq!(place(Disk, Device::Cpu, room(8, 8)), Place::Disk);
        assert_eq!(place(Memory, Device::Cpu, room(3, 8)), Place::Nowhere);
        let budget = Room {
            budget: Some(GB),
            ..room(8, 8)
        };
        let (found, why) = choose(Auto, Device::Cpu, 2 * GB, budget);
        assert_eq!(found, Place::Nowhere);
        assert!(why.contains("budget of 1024 MB"), "{why}");
    }

    #[test]
    fn rows_come_back_as_they_were_kept_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        for place in [Place::Memory, Place::Disk] {
            let file = directory.path().join("features");
            let mut cache = FeatureCache::new(place, Device::Cpu, 4, file);
            let batch =
                Tensor::arange(2 * 3 * 2 * 2, (Kind::Float, Device::Cpu)).view([2, 3, 2, 2]);
            cache.keep(&[3, 0], &batch).unwrap();
            cache.keep(&[2], &(batch.narrow(0, 0, 1) + 100)).unwrap();
            assert!(!cache.is_complete());
            cache.complete();
            assert!(cache.is_complete());
            let kept: Vec<bool> = (0..4).map(|index| cache.has(index)).collect();
            assert_eq!(kept, [true, false, true, true]);
            let found = cache.gather(&[0, 2, 3]).unwrap().unwrap();
            let expected = Tensor::cat(
                &[
                    batch.narrow(0, 1, 1),
                    batch.narrow(0, 0, 1) + 100,
                    batch.narrow(0, 0, 1),
                ],
                0,
            );
            assert_eq!(found, expected, "{place:?}");
        }
    }

    #[test]
    fn cache_without_a_place_keeps_nothing() {
        let mut cache = FeatureCache::new(Place::Nowhere, Device::Cpu, 1, PathBuf::new());
        cache
            .keep(
                &[0],
                &Tensor::zeros([1, 1, 1, 1], (Kind::Float, Device::Cpu)),
            )
            .unwrap();
        cache.complete();
        assert!(!cache.is_complete() && !cache.has(0));
        assert!(cache.gather(&[0]).unwrap().is_none());
    }
}
