use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{error::Error, info::to_utf8};
use crate::{
    artifacts::Artifacts,
    config::{self, HubConfig, ServeConfig},
    dataset::Roots,
    datasets::{self, DatasetRegistry, unpack},
    disk::Disk,
    imaging::Limits,
    inference::{Engine, EngineOptions, Predictor},
    model::{
        device,
        precision::{Precision, PrecisionPolicy},
    },
    proto::worker_v1,
    quarantine::Quarantine,
    registry::Registry,
    store::{Store, TrainingLimits},
    telemetry::{metrics, traces::Traces},
    training::supervisor::{Processes, Supervisor, SupervisorOptions},
};

pub(super) struct Components {
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) predictor: Predictor,
    pub(super) registry: Registry,
    pub(super) supervisor: Supervisor,
    pub(super) datasets: DatasetRegistry,
    pub(super) data_roots: Roots,
    pub(super) weights_roots: Roots,
    pub(super) image_limits: Limits,
    /// The name of the compute device.
    pub(super) device: String,
}

impl Components {
    pub(super) async fn open(config: &ServeConfig, traces: Traces) -> Result<Self, Error> {
        let store = Store::open(&config.data_dir).await?;
        // Absolute, because worker processes get paths below it.
        let data_dir = fs_err::canonicalize(&config.data_dir)?;
        let artifacts = Artifacts::local(&data_dir.join("artifacts")).await?;
        let kept = store.referenced_digests().await?;
        let quarantine = Quarantine::open(&data_dir, config.quarantine_expiry, SystemTime::now())?;
        let quarantine = artifacts.quarantine_unknown(&kept, quarantine).await?;
        let uploaded = DatasetRegistry::prepare(&data_dir)?;
        store.mark_files()?;
        let data_roots = Roots::new(config.data_roots.clone())?
            .except_data_dir(data_dir.clone())?
            .with_own(uploaded.clone())?;
        let data_directories = [config.data_roots.clone(), vec![uploaded]].concat();
        let weights_directory = data_dir.join("weights");
        fs_err::create_dir_all(&weights_directory)?;
        let weights_roots = Roots::of_weights(config.weights_roots.clone())?
            .except_data_dir(data_dir.clone())?
            .with_own(weights_directory.clone())?;
        let weights_directories = [vec![weights_directory], config.weights_roots.clone()].concat();
        let device = device::select(&config.device.to_string())?;
        let predictor = start_predictor(config, device)?;
        let registry = Registry::new(store.clone(), artifacts.clone(), predictor.clone());
        if config.starter {
            registry.register_starter().await?;
        }
        let device = device::name(device);
        metrics::build_info(env!("CARGO_PKG_VERSION"), device::LIBTORCH_VERSION, &device);
        let disk = Disk::new(data_dir.clone(), config.min_free_disk as u64);
        let options = SupervisorOptions {
            work_dir: data_dir.join("work"),
            reserve_file: data_dir.join("reserve"),
            event_directory: config.tensorboard.path(&data_dir, "runs"),
            launcher: config.worker_launcher.clone(),
            ranks: Processes {
                count: config.worker_processes,
                timeout: config.rank_timeout,
            },
            heartbeat_timeout: config.worker_silence_timeout,
            progress_timeout: config.worker_stall_timeout,
            grace: config.shutdown_grace,
            max_restarts: config.max_restarts,
            max_trainings: TrainingLimits {
                queued: config.max_queued_trainings as usize,
                stored: config.max_stored_trainings as usize,
            },
            disk: disk.clone(),
            device: device.clone(),
            threads: match config.worker_threads {
                0 => config.threads,
                threads => threads,
            },
            nice: config.worker_nice,
            data_roots: all_to_utf8(&data_directories),
            weights_roots: all_to_utf8(&weights_directories),
            hub: hub_access(&config.hub, &data_dir),
            limits: image_limits(config),
            traces,
        };
        let publisher = Arc::new(registry.clone());
        let supervisor = Supervisor::new(store.clone(), artifacts.clone(), publisher, options);
        let (datasets, quarantine) = DatasetRegistry::open(
            store.clone(),
            data_roots.clone(),
            datasets::Options {
                max_upload_bytes: config.max_upload_bytes as u64,
                disk,
                max_dataset_bytes: config.max_dataset_bytes as u64,
                max_datasets: config.max_datasets as usize,
                upload_expiry: config.upload_expiry,
                limits: unpack::Limits {
                    bytes: config.max_unpacked_bytes as u64,
                    entries: config.max_archive_entries.into(),
                },
                images: image_limits(config),
                data_dir,
            },
            quarantine,
        )
        .await?;
        quarantine.report(config.quarantine_expiry);
        Ok(Components {
            store,
            artifacts,
            predictor,
            registry,
            supervisor,
            datasets,
            data_roots,
            weights_roots,
            image_limits: image_limits(config),
            device,
        })
    }
}

fn start_predictor(config: &ServeConfig, device: tch::Device) -> Result<Predictor, Error> {
    let precision = match config.precision {
        config::Precision::Auto => PrecisionPolicy::Auto,
        config::Precision::F32 => PrecisionPolicy::Only(Precision::F32),
        config::Precision::Bf16 => PrecisionPolicy::Only(Precision::Bf16),
        config::Precision::F16 => PrecisionPolicy::Only(Precision::F16),
        config::Precision::F16Weights => PrecisionPolicy::Only(Precision::F16Weights),
    };
    precision.check(device)?;
    let (engine, _thread) = Engine::start(EngineOptions {
        device,
        pipelined: device != tch::Device::Cpu,
        precision,
        threads: config.threads as usize,
        max_batch: config.max_batch as usize,
        max_queued: config.max_queued_images as usize,
        max_loaded: config.max_loaded_models as usize,
    })?;
    Ok(Predictor::new(
        engine,
        config.decode_threads as usize,
        config.max_queued_images as usize,
        config.response_cache_bytes as u64,
        image_limits(config),
    )?)
}

fn image_limits(config: &ServeConfig) -> Limits {
    Limits {
        max_bytes: config.max_image_bytes as u64,
        max_pixels: config.max_image_pixels,
        max_dimension: config.max_image_dimension,
    }
}

fn hub_access(hub: &HubConfig, data_dir: &Path) -> worker_v1::HubAccess {
    let cache_dir = hub
        .cache_dir
        .clone()
        .unwrap_or_else(|| data_dir.join("hub"));
    worker_v1::HubAccess {
        endpoint: hub.endpoint.clone(),
        cache_dir: to_utf8(&cache_dir),
        token: hub.token.clone().unwrap_or_default(),
        offline: hub.offline,
        torch_home: hub.torch_home.as_deref().map(to_utf8).unwrap_or_default(),
    }
}

fn all_to_utf8(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| to_utf8(path)).collect()
}
