//! What lives from the first epoch of a training to the last, and what is done with it.
//!
//! - this file: how it begins, anew or where an earlier process was, and when it ends.
//! - `epoch`: one pass over the training images and a validation.
//! - `keeping`: full checkpoints to go on from, and the checkpoints that are served.
//! - `scoring`: what the network says about validation and test images.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tch::{Device, Tensor};

use crate::{
    dataset::{Dataset, Sample},
    imaging::{InputSpec, Limits},
    model::{
        self,
        calibration::Calibration,
        device,
        fused::TrainableLayers,
        init,
        precision::{Precision, supports_bf16},
        resnet18::{Mode, ResNet18},
        weights::HubOptions,
    },
    proto::{
        v1,
        worker_v1::{InitLoaded, Job, PartialEpoch, worker_event},
    },
};

use super::{
    early_stopping::EarlyStopping,
    estimate,
    failure::Error,
    feature_cache::{self, FeatureCache, Place, Room},
    feed::variants,
    flat::FlatParameters,
    full_checkpoint::{Restored, Writer},
    loader::{Draws, LabelledImage, LoaderOptions},
    machine::{free_disk, free_memory},
    monitor::Metric,
    objective::{self, Objective, YEARS},
    optimizer::{Average, Optimizer},
    process::Reporter,
    schedule::Scheduler,
    spec::{Changes, Spec},
};

mod epoch;
mod keeping;
mod scoring;

pub(super) use epoch::Pass;

use keeping::{change_scale, restored_state};

/// Where ImageNet's weights are looked for.
fn sources(job: &Job) -> init::WeightSources {
    let hub = job.hub.clone().unwrap_or_default();
    let mut directories: Vec<PathBuf> = job.weights_roots.iter().map(PathBuf::from).collect();
    directories.extend((!hub.torch_home.is_empty()).then(|| PathBuf::from(hub.torch_home)));
    let mut options = HubOptions::new(PathBuf::from(hub.cache_dir));
    options.endpoint = Some(hub.endpoint).filter(|endpoint| !endpoint.is_empty());
    options.token = Some(hub.token).filter(|token| !token.is_empty());
    options.offline = hub.offline;
    init::WeightSources {
        directories,
        hub: options,
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

/// The weights of the best epoch so far and its figures.
struct Best {
    metrics: v1::EpochMetrics,
    /// The tensors of trained parts as they are exported: in years, averaged if the spec wants it.
    trained: BTreeMap<String, Tensor>,
    /// What its intervals are made of.
    calibration: Option<Calibration>,
}

/// How long the training has run and may run.
struct Clock {
    /// When this process began.
    begun: Instant,
    /// When it began to train.
    trains_since: Instant,
    /// What earlier processes took.
    earlier: Duration,
    limit: Option<Duration>,
    /// Epochs, the begun one by its share, that were done when this process began to train.
    first_done: f64,
}

impl Clock {
    fn elapsed(&self) -> Duration {
        self.earlier + self.begun.elapsed()
    }

    fn is_out_of_time(&self) -> bool {
        self.limit.is_some_and(|limit| self.elapsed() >= limit)
    }

    /// Seconds that the rest will take when so many epochs of all are done; not finite before anything is.
    fn remaining(&self, done: f64, all: u32) -> f64 {
        let pace = self.trains_since.elapsed().as_secs_f64() / (done - self.first_done);
        pace * (f64::from(all) - done)
    }
}

/// Everything that lives from the first epoch to the last.
pub(super) struct Session<'a> {
    job: &'a Job,
    spec: Spec,
    dataset: &'a Dataset,
    device: Device,
    state: BTreeMap<String, Tensor>,
    network: ResNet18,
    /// The trained layers again, where the processor trains them faster than libtorch.
    tail: Option<TrainableLayers>,
    parameters: FlatParameters,
    optimizer: Optimizer,
    average: Option<Average>,
    objective: Objective,
    scheduler: Scheduler,
    stopping: EarlyStopping,
    train: Arc<Vec<LabelledImage>>,
    train_cache: FeatureCache,
    validation: Arc<Vec<LabelledImage>>,
    validation_cache: FeatureCache,
    loader: LoaderOptions,
    mean_age: f64,
    /// Epochs that are complete.
    epochs: u32,
    /// How far the running one is.
    partial: PartialEpoch,
    last: Option<v1::EpochMetrics>,
    best: Option<Best>,
    clock: Clock,
    writer: Writer,
    /// When the latest full checkpoint was taken.
    saved: Instant,
}

impl<'a> Session<'a> {
    /// Begins anew, or where an earlier process was. `begun` is when the process began.
    pub(super) fn prepare(
        job: &'a Job,
        spec: Spec,
        dataset: &'a Dataset,
        device: Device,
        (begun, reporter): (Instant, &Arc<Reporter>),
        restored: Option<Restored>,
    ) -> Result<Self, Error> {
        let loading = reporter.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            phase: "load".to_owned(),
            ..Default::default()
        });
        loading.map_err(Error::Pipe)?;
        // One that goes on has had room for itself; what is free in this moment is no reason to end it.
        if job.check_memory && device == Device::Cpu && restored.is_none() {
            check_memory(&spec)?;
        }
        let mean_age = mean_age(&dataset.train);
        let objective = Objective {
            loss: spec.loss,
            scale: match spec.standardise_targets {
                true => objective::standardised(ages(&dataset.train)),
                false => YEARS,
            },
        };
        let (mut state, restored) = match restored {
            Some(mut restored) => (restored_state(&mut restored)?, Some(restored)),
            None => (initial_state(job, &spec, mean_age, reporter)?, None),
        };
        if restored.is_none() {
            // The head of the initial weights predicts years.
            change_scale(&mut state, objective.scale)?;
        }
        let mut state = to_device(state, device)?;
        let precision = spec
            .precision
            .unwrap_or_else(|| fastest_precision(&spec, device));
        let parameters = FlatParameters::gather(&mut state, spec.trained, device, precision)?;
        let optimizer = Optimizer::new(&parameters, spec.optimizer.clone())?;
        tracing::info!(
            trained = parameters.count(),
            device = device::name(device),
            precision = precision.name(),
            "ready to train"
        );
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (train, validation) = (images(&dataset.train), images(&dataset.val));
        let places = Places::choose(
            job,
            &spec,
            device,
            precision,
            (train.len(), validation.len()),
        );
        let cache = |place: Place, name: &str, images: usize| {
            FeatureCache::new(place, device, images, Path::new(&job.work_dir).join(name))
        };
        let network = ResNet18::new(&parameters.computed(&state), spec.trained, precision)?;
        let tail = if precision == Precision::Bf16 && !spec.freeze_batch_norm {
            TrainableLayers::new(parameters.lengths(), spec.trained, &state)
        } else {
            None
        };
        let now = Instant::now();
        let mut session = Session {
            job,
            dataset,
            device,
            network,
            tail,
            train_cache: cache(
                places.train,
                "train.features",
                train.len() * variants(&spec.augmentation),
            ),
            validation_cache: cache(places.validation, "validation.features", validation.len()),
            state,
            parameters,
            optimizer,
            average: None,
            objective,
            scheduler: Scheduler::new(spec.schedule),
            stopping: EarlyStopping::new(spec.patience, spec.min_delta),
            train,
            validation,
            loader: LoaderOptions {
                batch_size: spec.batch_size,
                input: InputSpec {
                    size: spec.input_size,
                    ..InputSpec::default()
                },
                limits: limits(job),
                threads,
            },
            mean_age,
            epochs: 0,
            partial: PartialEpoch::default(),
            last: None,
            best: None,
            clock: Clock {
                begun,
                trains_since: now,
                earlier: Duration::ZERO,
                limit: spec.max_duration,
                first_done: 0.0,
            },
            writer: Writer::new(
                PathBuf::from(&job.work_dir),
                job.attempt,
                Arc::clone(reporter),
            ),
            saved: now,
            spec,
        };
        if let Some(decay) = session.spec.ema_decay {
            session.average = Some(Average::new(decay, &session.trained_tensors())?);
        }
        if let Some(restored) = restored {
            session.restore(restored)?;
        }
        Ok(session)
    }

    /// Why the training is not to make another epoch; `None` when it is.
    pub(super) fn ending(&self) -> Option<v1::StopReason> {
        let is_target_reached = |(metric, value): (Metric, f64)| {
            let found = self.last.as_ref().map(|last| metric.of(last));
            found.is_some_and(|found| found <= value)
        };
        if self.spec.target.is_some_and(is_target_reached) {
            Some(v1::StopReason::TargetReached)
        } else if self.epochs >= self.spec.max_epochs {
            Some(v1::StopReason::MaxEpochs)
        } else if self.stopping.is_enough() {
            Some(v1::StopReason::EarlyStopped)
        } else if self.epochs > 0 && self.is_out_of_time() {
            Some(v1::StopReason::MaxDuration)
        } else {
            None
        }
    }

    /// Step size before the schedule.
    pub(super) fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    /// Whether an epoch has begun and is not over.
    pub(super) fn is_within_epoch(&self) -> bool {
        self.partial.position > 0
    }

    /// What has been spent on the running epoch so far, by all processes.
    pub(super) fn spent(&self) -> v1::EpochSeconds {
        self.partial.seconds.unwrap_or_default()
    }

    /// Whether there is a checkpoint.
    pub(super) fn has_best(&self) -> bool {
        self.best.is_some()
    }

    /// Whether the training has taken as long as it may.
    fn is_out_of_time(&self) -> bool {
        self.clock.is_out_of_time()
    }

    /// Changes what a client asked for; to be called between two epochs.
    pub(super) fn change(&mut self, changes: Changes) {
        if let Some(epochs) = changes.max_epochs {
            self.spec.max_epochs = epochs;
        }
        if let Some(patience) = changes.patience {
            self.spec.patience = patience;
            self.stopping.set_patience(patience);
        }
        if let Some(rate) = changes.learning_rate {
            self.spec.optimizer.learning_rate = rate;
        }
        // The spec's, from which a process that went on in the middle of an epoch had departed.
        let rate = self.spec.optimizer.learning_rate;
        self.optimizer.set_learning_rate(rate);
    }

    /// What the moving average follows: the flat parameters, then the running statistics of trained parts; shared.
    fn trained_tensors(&self) -> Vec<Tensor> {
        let statistics = self.state.iter().filter(|(name, _)| {
            let is_statistic = name.ends_with("running_mean") || name.ends_with("running_var");
            is_statistic && self.spec.trained.contains_name(name)
        });
        let statistics = statistics.map(|(_, tensor)| tensor.shallow_clone());
        std::iter::once(self.parameters.values().shallow_clone())
            .chain(statistics)
            .collect()
    }

    /// Exchanges the moving average, if there is one, and what is trained.
    fn exchange_average(&mut self) -> Result<(), Error> {
        let mut trained = self.trained_tensors();
        let Some(average) = &mut self.average else {
            return Ok(());
        };
        average.exchange(&mut trained)?;
        Ok(self.parameters.renew_rounded()?)
    }

    /// What the trained layers make of features `[N, C, S, S]`, or of images `[N, 3, S, S]`: `[N]`. Who wants it of changed parameters calls
    /// [`Session::load_tail`] before.
    fn predict(&mut self, features: &Tensor, mode: Mode) -> Result<Tensor, model::Error> {
        match &mut self.tail {
            Some(tail) => tail.forward(features, self.parameters.values(), mode),
            None => self
                .network
                .forward_features(features.shallow_clone(), mode),
        }
    }

    /// What makes features of images; `None` where those that train take the images themselves.
    fn feeder(&self) -> Option<&ResNet18> {
        let takes_images = self
            .tail
            .as_ref()
            .is_some_and(TrainableLayers::takes_images);
        (!takes_images).then_some(&self.network)
    }

    fn load_tail(&mut self) {
        if let Some(tail) = &mut self.tail {
            tail.load(self.parameters.values());
        }
    }

    fn draws(&self, epoch: u32) -> Draws {
        Draws {
            augmentation: self.spec.augmentation,
            seed: self.spec.seed,
            epoch,
        }
    }

    /// What the network's trained BatchNorms do while they train.
    fn train_mode(&self) -> Mode {
        match self.spec.freeze_batch_norm {
            true => Mode::Eval,
            false => Mode::Train,
        }
    }

    /// Epochs that are done, the running one by its share.
    fn done(&self) -> f64 {
        let within = self.partial.position as f64 / self.train.len().max(1) as f64;
        f64::from(self.epochs) + within
    }
}

/// The initial weights, with the head's bias as the spec wants it.
fn initial_state(
    job: &Job,
    spec: &Spec,
    mean_age: f64,
    reporter: &Reporter,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let loaded = init::load(&spec.init, spec.seed, &sources(job)).map_err(Error::Init)?;
    tracing::info!(source = loaded.source, "initial weights");
    let event = InitLoaded {
        source: loaded.source,
    };
    reporter
        .send(worker_event::Kind::Init(event))
        .map_err(Error::Pipe)?;
    if spec.mean_age_bias {
        let mut bias = loaded.state["fc.bias"].shallow_clone();
        tch::no_grad(|| bias.f_fill_(mean_age))
            .map(drop)
            .map_err(model::Error::from)?;
    }
    Ok(loaded.state)
}

/// The one that costs no accuracy that matters and takes least time: bf16 also on processors that do not multiply in it, where the own passes make up for that.
fn fastest_precision(spec: &Spec, device: Device) -> Precision {
    let has_own_passes = device == Device::Cpu
        && !spec.freeze_batch_norm
        && TrainableLayers::can_train(spec.trained);
    if has_own_passes || supports_bf16(device) {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// Refuses to begin what will not fit.
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

/// Where features are kept.
struct Places {
    train: Place,
    validation: Place,
}

impl Places {
    /// Chooses where the features of the training and the validation images lie, and says so in the log.
    fn choose(
        job: &Job,
        spec: &Spec,
        device: Device,
        precision: Precision,
        (train, validation): (usize, usize),
    ) -> Self {
        let variants = variants(&spec.augmentation);
        let images = train * variants + validation;
        let needed =
            feature_cache::bytes_of_features(spec.trained, spec.input_size, precision, images);
        let Some(needed) = needed else {
            tracing::info!("no feature cache: all layers are trained");
            return Places {
                train: Place::Nowhere,
                validation: Place::Nowhere,
            };
        };
        let room = Room {
            budget: spec.cache_budget,
            memory: free_memory().saturating_sub(estimate::without_features(spec)),
            disk: free_disk(Path::new(&job.work_dir)),
        };
        let (place, why) = feature_cache::choose(spec.feature_cache, device, needed, room);
        tracing::info!(?place, ?precision, "feature cache: {why}");
        if variants == 0 {
            tracing::info!("training images are not cached: each epoch changes them anew");
        }
        Places {
            train: if variants == 0 { Place::Nowhere } else { place },
            validation: place,
        }
    }
}

/// For a pass whose features are not needed again.
fn no_cache() -> FeatureCache {
    FeatureCache::new(Place::Nowhere, Device::Cpu, 0, PathBuf::new())
}

fn images(samples: &[Sample]) -> Arc<Vec<LabelledImage>> {
    let image = |sample: &Sample| LabelledImage {
        path: sample.path.clone(),
        age: sample.age,
    };
    Arc::new(samples.iter().map(image).collect())
}

fn ages(samples: &[Sample]) -> impl Iterator<Item = f64> + Clone {
    samples.iter().map(|sample| f64::from(sample.age))
}

fn mean_age(samples: &[Sample]) -> f64 {
    ages(samples).sum::<f64>() / samples.len() as f64
}

fn to_device(
    state: BTreeMap<String, Tensor>,
    device: Device,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let moved = state
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.f_to_device(device)?)));
    Ok(moved
        .collect::<Result<_, tch::TchError>>()
        .map_err(model::Error::from)?)
}

fn duration_message(seconds: f64) -> Option<prost_types::Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    prost_types::Duration::try_from(duration).ok()
}
