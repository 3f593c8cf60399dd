//! Construction of a session, from the initial weights or from a full checkpoint.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tch::{Device, Tensor};

use crate::{
    dataset::{Dataset, Sample},
    imaging::{InputSpec, Limits},
    model::{
        device,
        fused::TrainableLayers,
        init,
        precision::{Precision, supports_bf16},
        resnet18::ResNet18,
    },
    proto::{
        v1,
        worker_v1::{InitLoaded, Job, PartialEpoch, worker_event},
    },
    training::{
        data_loader::LoaderOptions,
        early_stopping::EarlyStopping,
        estimate,
        feature_cache::{self, AvailableSpace, CacheLocation, FeatureCache},
        feature_loader::variants,
        loss::{self, Loss, YEARS},
        optimizer::{MovingAverage, Optimizer},
        parameters::FlatParameters,
        ranks::Ranks,
        resources::{free_disk, free_memory},
        schedule::Scheduler,
        shards::{RunningStatistics, Sharding},
        spec::Spec,
        weight_sources::weight_sources,
    },
};

use super::{
    checkpointing::restored_state,
    clock::Clock,
    error::Error,
    export::change_scale,
    full_checkpoint::{Restored, Writer},
    link::EventSender,
    session::{Session, images},
    trained_on::TrainedOn,
};

/// Input of [`Session::build`].
pub(super) struct Start<'a, 'b> {
    pub(super) job: &'a Job,
    pub(super) spec: Spec,
    pub(super) dataset: &'a Dataset,
    pub(super) device: Device,
    pub(super) events: &'b Arc<EventSender>,
    /// Start of the process.
    pub(super) started: Instant,
    pub(super) restored: Option<Restored>,
    pub(super) ranks: Ranks,
}

impl<'a> Session<'a> {
    pub(super) fn build(start: Start<'a, '_>) -> Result<Self, Error> {
        let Start {
            job,
            spec,
            dataset,
            device,
            events,
            started,
            restored,
            ranks,
        } = start;
        events.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            phase: "load".to_owned(),
            ..Default::default()
        })?;
        // A resumed training fitted before, so a transient shortage must not fail it.
        if job.check_memory && device == Device::Cpu && restored.is_none() {
            check_memory(&spec)?;
        }
        let mean_age = ages(&dataset.train).sum::<f64>() / dataset.train.len() as f64;
        let loss = Loss {
            spec: spec.loss,
            scale: if spec.standardise_targets {
                loss::standardised(ages(&dataset.train))
            } else {
                YEARS
            },
        };
        let (mut state, trained_on, predicts_ages, restored) = match restored {
            Some(mut restored) => {
                let initial_images = restored.record.initial_images.as_deref();
                let trained_on = TrainedOn::restore(initial_images, &dataset.train);
                (
                    restored_state(&mut restored)?,
                    trained_on,
                    false,
                    Some(restored),
                )
            }
            None => {
                let loaded = initial_weights(job, &spec, mean_age, events)?;
                let trained_on = TrainedOn::new(loaded.training_images, &dataset.train);
                // A bias that was set to the mean age does not fit the other weights.
                let predicts_ages = loaded.predicts_ages && !spec.mean_age_bias;
                (loaded.state, trained_on, predicts_ages, None)
            }
        };
        if restored.is_none() {
            // The head of the initial weights predicts years.
            change_scale(&mut state, loss.scale)?;
        }
        let mut state = to_device(state, device)?;
        let precision = spec
            .precision
            .unwrap_or_else(|| fastest_precision(&spec, device));
        let parameters = FlatParameters::gather(&mut state, spec.trained, device, precision)?;
        let optimizer = Optimizer::new(&parameters, spec.optimizer.clone())?;
        tracing::info!(
            trained_parameters = parameters.count(),
            device = device::name(device),
            precision = precision.name(),
            "network ready for training"
        );
        let (train, validation) = (images(&dataset.train), images(&dataset.val));
        let image_counts = (train.len(), validation.len());
        let plan = CachePlan::choose(job, &spec, device, precision, image_counts);
        let cache = |location: CacheLocation, name: &str, rows: usize| {
            // Each rank on this machine has its own file.
            let name = if ranks.is_first() {
                format!("{name}.features")
            } else {
                format!("{name}-{}.features", std::process::id())
            };
            FeatureCache::new(location, device, rows, Path::new(&job.work_dir).join(name))
        };
        let train_rows = train.len() * variants(&spec.augmentation);
        let network = ResNet18::new(&parameters.computed(&state), spec.trained, precision)?;
        let fused = if precision == Precision::Bf16 && !spec.freeze_batch_norm {
            TrainableLayers::new(parameters.lengths(), spec.trained, &state)
        } else {
            None
        };
        let sharding = (spec.shards > 1).then(|| {
            Sharding::new(RunningStatistics::new(
                &state,
                spec.trained,
                spec.input_size,
            ))
        });
        let mut session = Session {
            job,
            dataset,
            device,
            network,
            fused,
            train_cache: cache(plan.train, "train", train_rows),
            validation_cache: cache(plan.validation, "validation", validation.len()),
            state,
            parameters,
            optimizer,
            average: None,
            sharding,
            agreed: None,
            loss,
            scheduler: Scheduler::new(spec.schedule),
            stopping: EarlyStopping::new(spec.patience, spec.min_delta),
            train,
            validation,
            loader: LoaderOptions {
                input: InputSpec {
                    size: spec.input_size,
                    ..InputSpec::default()
                },
                limits: limits(job),
                threads: (std::thread::available_parallelism().map_or(1, usize::from)
                    / ranks.count())
                .max(1),
            },
            ranks,
            mean_age,
            trained_on,
            predicts_ages,
            epochs: 0,
            partial: PartialEpoch::default(),
            last: None,
            best: None,
            clock: Clock::new(started, spec.max_duration),
            writer: Writer::new(
                PathBuf::from(&job.work_dir),
                job.attempt,
                Arc::clone(events),
            ),
            saved: Instant::now(),
            spec,
        };
        if let Some(decay) = session.spec.ema_decay {
            let average = MovingAverage::new(decay, &session.trained_tensors())?;
            session.average = Some(average);
        }
        if let Some(restored) = restored {
            session.restore(restored)?;
        }
        Ok(session)
    }
}

pub(super) fn limits(job: &Job) -> Limits {
    let limits = job.image_limits.unwrap_or_default();
    Limits {
        max_bytes: limits.max_bytes,
        max_pixels: limits.max_pixels,
        max_dimension: limits.max_dimension,
    }
}

/// Fails early if the training will not fit into memory.
fn check_memory(spec: &Spec) -> Result<(), Error> {
    let needed = estimate::memory_bytes(spec, 0, 0);
    let free = free_memory();
    if needed <= free {
        return Ok(());
    }
    Err(Error::TooLittleMemory {
        needed,
        free,
        batch_size: spec.batch_size,
        input_size: spec.input_size,
    })
}

fn ages(samples: &[Sample]) -> impl Iterator<Item = f64> + Clone {
    samples.iter().map(|sample| f64::from(sample.age))
}

/// Loads the initial weights and sets the bias of the head.
fn initial_weights(
    job: &Job,
    spec: &Spec,
    mean_age: f64,
    events: &EventSender,
) -> Result<init::InitialWeights, Error> {
    let hub = job.hub.clone().unwrap_or_default();
    let sources = init::WeightSources {
        artifacts: Some(PathBuf::from(&job.artifacts_dir)),
        ..weight_sources(&job.weights_roots, hub)
    };
    let loaded = init::load(&spec.init, spec.seed, &sources).map_err(Error::Init)?;
    tracing::info!(source = loaded.source, "initial weights loaded");
    events.send(worker_event::Kind::Init(InitLoaded {
        source: loaded.source.clone(),
    }))?;
    if spec.mean_age_bias {
        let mut bias = loaded.state["fc.bias"].shallow_clone();
        tch::no_grad(|| bias.f_fill_(mean_age).map(drop))?;
    }
    Ok(loaded)
}

pub(super) fn to_device(
    state: BTreeMap<String, Tensor>,
    device: Device,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let moved = state
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.f_to_device(device)?)));
    moved.collect()
}

/// Returns the fastest precision without a relevant loss of accuracy. The own kernels use bf16 even
/// on CPUs that do not multiply in it, because they are faster than libtorch in f32.
fn fastest_precision(spec: &Spec, device: Device) -> Precision {
    let has_own_kernels = device == Device::Cpu
        && !spec.freeze_batch_norm
        && TrainableLayers::can_train(spec.trained);
    if has_own_kernels || supports_bf16(device) {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// Locations of the feature caches.
struct CachePlan {
    train: CacheLocation,
    validation: CacheLocation,
}

impl CachePlan {
    /// Chooses and logs the locations.
    fn choose(
        job: &Job,
        spec: &Spec,
        device: Device,
        precision: Precision,
        (train, validation): (usize, usize),
    ) -> Self {
        let variants = variants(&spec.augmentation);
        let rows = train * variants + validation;
        let needed =
            feature_cache::bytes_of_features(spec.trained, spec.input_size, precision, rows);
        let Some(needed) = needed else {
            tracing::info!("feature cache disabled, because all layers are trained");
            return CachePlan {
                train: CacheLocation::None,
                validation: CacheLocation::None,
            };
        };
        let space = AvailableSpace {
            budget: spec.cache_budget,
            memory: free_memory().saturating_sub(estimate::without_features(spec)),
            disk: free_disk(Path::new(&job.work_dir)),
        };
        let (location, reason) = feature_cache::choose(spec.feature_cache, device, needed, space);
        tracing::info!(
            ?location,
            ?precision,
            reason,
            "feature cache location chosen"
        );
        if variants == 0 {
            tracing::info!(
                "training images not cached, because each epoch augments them differently"
            );
        }
        CachePlan {
            train: if variants == 0 {
                CacheLocation::None
            } else {
                location
            },
            validation: location,
        }
    }
}
