//! What lives from the first epoch of a training to the last, and what is done with it: an epoch, a checkpoint, the test.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use crate::{
    dataset::{self, Dataset, Sample},
    evaluation::{
        Scored, Sums,
        conformal::calibrate,
        figures::{Baseline, Image, Intervals, evaluate},
    },
    imaging::{InputSpec, Limits},
    model::{
        self,
        calibration::{Calibration, DEFAULT_LEVEL},
        checkpoint::{self, DatasetRecord, LabelScale, Manifest},
        device::{self, Precision},
        init,
        resnet18::{Mode, ResNet18},
        weights::HubOptions,
    },
    proto::{
        self, v1,
        worker_v1::{InitLoaded, Job, WorkerFile, worker_event},
    },
};

use super::{
    failure::Error,
    feature_cache::{self, FeatureCache, Place, Room, free_disk, free_memory},
    feed::{Fed, Feed, Skipped},
    flat::{Adam, FlatParameters},
    loader::{LoaderOptions, Picture},
    process::{Control, Reporter, Wish},
    spec::{SINGLE_VALUE_SIZE, Spec},
    timed,
};

/// Where ImageNet's weights are looked for.
fn sources(job: &Job) -> init::Sources {
    let hub = job.hub.clone().unwrap_or_default();
    let mut folders: Vec<PathBuf> = job.weights_roots.iter().map(PathBuf::from).collect();
    folders.extend((!hub.torch_home.is_empty()).then(|| PathBuf::from(hub.torch_home)));
    let mut options = HubOptions::new(PathBuf::from(hub.cache_dir));
    options.endpoint = Some(hub.endpoint).filter(|endpoint| !endpoint.is_empty());
    options.token = Some(hub.token).filter(|token| !token.is_empty());
    options.offline = hub.offline;
    init::Sources {
        folders,
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

/// How a pass over the data ended.
pub(super) enum Pass {
    /// With its figures, and what the model says about each validation image.
    Complete(Box<v1::EpochMetrics>, Vec<Scored>),
    /// Before its end, for this reason.
    Broken(v1::StopReason),
}

pub(super) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Everything that lives from the first epoch to the last.
pub(super) struct Session<'a> {
    job: &'a Job,
    spec: &'a Spec,
    dataset: &'a Dataset,
    device: Device,
    state: BTreeMap<String, Tensor>,
    network: ResNet18,
    parameters: FlatParameters,
    adam: Adam,
    train: Arc<Vec<Picture>>,
    train_cache: FeatureCache,
    validation: Arc<Vec<Picture>>,
    validation_cache: FeatureCache,
    loader: LoaderOptions,
    mean_age: f64,
    /// That of the latest checkpoint, which is the best one.
    calibration: Option<Calibration>,
}

impl<'a> Session<'a> {
    pub(super) fn prepare(
        job: &'a Job,
        spec: &'a Spec,
        dataset: &'a Dataset,
        device: Device,
        reporter: &Reporter,
    ) -> Result<Self, Error> {
        let loading = reporter.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            phase: "load".to_owned(),
            ..Default::default()
        });
        loading.map_err(Error::Pipe)?;
        let mean_age = mean_age(&dataset.train);
        let loaded = init::load(&spec.init, spec.seed, &sources(job)).map_err(Error::Init)?;
        tracing::info!(source = loaded.source, "initial weights");
        let event = InitLoaded {
            source: loaded.source,
        };
        reporter
            .send(worker_event::Kind::Init(event))
            .map_err(Error::Pipe)?;
        let mut state = to_device(loaded.state, device)?;
        if spec.mean_age_bias {
            let mut bias = state["fc.bias"].shallow_clone();
            tch::no_grad(|| bias.f_fill_(mean_age))
                .map(drop)
                .map_err(model::Error::from)?;
        }
        let precision = spec.precision.unwrap_or_else(|| Precision::fastest(device));
        let parameters = FlatParameters::gather(&mut state, spec.trained, device, precision)?;
        let adam = Adam::new(&parameters, spec.optimizer)?;
        tracing::info!(
            trained = parameters.count(),
            device = device::name(device),
            "ready to train"
        );
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (train, validation) = (pictures(&dataset.train), pictures(&dataset.val));
        let place = place_of_features(job, spec, device, precision, train.len() + validation.len());
        let cache = |name: &str, images: usize| {
            FeatureCache::new(place, device, images, Path::new(&job.work_dir).join(name))
        };
        Ok(Session {
            job,
            spec,
            dataset,
            device,
            network: ResNet18::new(&parameters.computed(&state), spec.trained, precision)?,
            train_cache: cache("train.features", train.len()),
            validation_cache: cache("validation.features", validation.len()),
            state,
            parameters,
            adam,
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
            calibration: None,
        })
    }

    /// One pass over the training images and a validation. `deadline` is when the training must end.
    pub(super) fn epoch(
        &mut self,
        epoch: u32,
        (started, deadline): (Instant, Option<Instant>),
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Pass, Error> {
        let begun = Instant::now();
        let mut seconds = v1::EpochSeconds::default();
        let mut sums = Sums::default();
        let order = dataset::epoch_order(self.train.len(), self.spec.seed, u64::from(epoch));
        let mut feed = Feed::start(&self.train, order, &self.loader, &self.train_cache);
        let steps = feed.batches();
        for step in 0..steps {
            match control.wish() {
                Wish::GoOn if is_past(deadline) => {
                    return Ok(Pass::Broken(v1::StopReason::MaxDuration));
                }
                Wish::GoOn => {}
                Wish::Stop => return Ok(Pass::Broken(v1::StopReason::UserStop)),
                Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
            }
            let fed = feed.next(
                &self.network,
                Mode::Train,
                self.device,
                &mut self.train_cache,
                &mut seconds,
            )?;
            let Some(fed) = fed else { break };
            // A BatchNorm of layer4 would divide by the variance of a single value, which is zero.
            let is_single_value = fed.ages.len() == 1 && self.spec.input_size <= SINGLE_VALUE_SIZE;
            if !fed.ages.is_empty() && !is_single_value {
                self.step(fed, &mut sums, &mut seconds, epoch, step)?;
            }
            let report = reporter.progress(|| {
                let rate = sums.images() as f64 / begun.elapsed().as_secs_f64();
                self.progress("train", epoch, step + 1, steps, started, rate, sums.mse())
            });
            report.map_err(Error::Pipe)?;
        }
        check_skipped(feed.skipped(), epoch, self.train.len(), self.spec)?;
        let skipped = feed.skipped().count;
        drop(feed);
        self.train_cache.complete();
        let training_seconds = begun.elapsed().as_secs_f64();
        let validating = Instant::now();
        let validation = Arc::clone(&self.validation);
        // Taken out for the time of the pass, because the pass borrows the session.
        let mut cache = std::mem::replace(&mut self.validation_cache, no_cache());
        let scored = self.score(
            &validation,
            &mut cache,
            "validate",
            epoch,
            (reporter, control),
        );
        self.validation_cache = cache;
        let scored = scored?;
        let Some((scored, _)) = scored else {
            return Ok(Pass::Broken(v1::StopReason::UserStop));
        };
        seconds.validate = validating.elapsed().as_secs_f64();
        seconds.total = begun.elapsed().as_secs_f64();
        let found: Sums = scored.iter().copied().collect();
        let remaining = f64::from(self.spec.max_epochs - epoch) * started.elapsed().as_secs_f64()
            / f64::from(epoch);
        let metrics = v1::EpochMetrics {
            epoch,
            attempt: self.job.attempt,
            train_loss: sums.mse(),
            val_loss: found.mse(),
            val_rmse: found.mse().sqrt(),
            val_mae: found.mae(),
            train_mae: sums.mae(),
            learning_rate: self.spec.optimizer.learning_rate,
            images_per_second: sums.images() as f64 / training_seconds,
            train_images: sums.images(),
            val_images: found.images(),
            is_best: false,
            epochs_without_improvement: 0,
            seconds: Some(seconds),
            skipped_images: skipped,
            max_epochs: self.spec.max_epochs,
            eta: duration_message(remaining),
        };
        Ok(Pass::Complete(Box::new(metrics), scored))
    }

    /// Forward, backward and update on one batch.
    fn step(
        &mut self,
        fed: Fed,
        sums: &mut Sums,
        seconds: &mut v1::EpochSeconds,
        epoch: u32,
        step: usize,
    ) -> Result<(), Error> {
        let ages = Tensor::f_from_slice(&fed.ages)
            .and_then(|ages| ages.f_to_device(self.device))
            .map_err(model::Error::from)?;
        let predicted = timed(&mut seconds.forward, || {
            self.network.head(fed.features, Mode::Train)
        })?;
        let difference = subtract(&predicted, &ages)?;
        let loss = difference
            .f_square()
            .and_then(|squares| squares.f_mean(Kind::Float))
            .map_err(model::Error::from)?;
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(Error::NonFiniteLoss {
                epoch,
                step: step + 1,
                loss: value,
                learning_rate: self.spec.optimizer.learning_rate,
            });
        }
        timed(&mut seconds.backward, || self.parameters.backward(&loss))?;
        timed(&mut seconds.update, || self.adam.step(&mut self.parameters))?;
        for scored in score(&predicted, &fed.ages)? {
            sums.add(scored);
        }
        Ok(())
    }

    /// Predicts all pictures in eval mode; `None` when a stop came before the end. Also returns which pictures could be read.
    fn score(
        &self,
        pictures: &Arc<Vec<Picture>>,
        cache: &mut FeatureCache,
        phase: &str,
        epoch: u32,
        (reporter, control): (&Reporter, &Control),
    ) -> Result<Option<Evaluated>, Error> {
        let order = (0..pictures.len() as u32).collect();
        let mut scored = Vec::with_capacity(pictures.len());
        let mut indices = Vec::with_capacity(pictures.len());
        let mut feed = Feed::start(pictures, order, &self.loader, cache);
        let steps = feed.batches();
        // Told as a whole, by whoever asked.
        let mut seconds = v1::EpochSeconds::default();
        for step in 0..steps {
            match control.wish() {
                Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
                // A stop lets the test finish, which ends the training anyhow.
                Wish::Stop if phase == "validate" => return Ok(None),
                Wish::Stop | Wish::GoOn => {}
            }
            let fed = tch::no_grad(|| {
                feed.next(&self.network, Mode::Eval, self.device, cache, &mut seconds)
            })?;
            let Some(fed) = fed else { break };
            if !fed.ages.is_empty() {
                let predicted = tch::no_grad(|| self.network.head(fed.features, Mode::Eval))?;
                scored.extend(score(&predicted, &fed.ages)?);
                indices.extend_from_slice(&fed.indices);
            }
            let report = reporter.progress(|| v1::Progress {
                epoch,
                max_epochs: self.spec.max_epochs,
                step: step as u32 + 1,
                steps: steps as u32,
                phase: phase.to_owned(),
                fraction: f64::from(epoch) / f64::from(self.spec.max_epochs),
                ..Default::default()
            });
            report.map_err(Error::Pipe)?;
        }
        check_skipped(feed.skipped(), epoch, pictures.len(), self.spec)?;
        cache.complete();
        Ok(Some((scored, indices)))
    }

    /// Evaluates the best weights on the test images, if there are any.
    pub(super) fn test(
        &mut self,
        best: BTreeMap<String, Tensor>,
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Option<v1::Evaluation>, Error> {
        if self.dataset.test.is_empty() {
            return Ok(None);
        }
        tch::no_grad(|| {
            for (name, tensor) in &best {
                self.state[name].shallow_clone().f_copy_(tensor)?;
            }
            Ok::<_, model::Error>(())
        })?;
        self.parameters.renew_rounded()?;
        let pictures = pictures(&self.dataset.test);
        let epoch = self.spec.max_epochs;
        let scored = self.score(
            &pictures,
            &mut no_cache(),
            "test",
            epoch,
            (reporter, control),
        )?;
        let Some((scored, indices)) = scored else {
            return Ok(None);
        };
        let image = |(scored, index): (&Scored, &u32)| {
            let sample = &self.dataset.test[*index as usize];
            Image {
                name: &sample.name,
                labels: sample.labels.iter().collect(),
                scored: *scored,
            }
        };
        let images: Vec<_> = scored.iter().zip(&indices).map(image).collect();
        Ok(Some(evaluate(
            &images,
            Baseline::new(Some(self.mean_age), &images),
            Intervals::at(self.calibration.as_ref(), DEFAULT_LEVEL),
        )))
    }

    /// A copy of everything that training changes.
    pub(super) fn snapshot(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let trained = self
            .state
            .iter()
            .filter(|(name, _)| self.spec.trained.contains_name(name));
        let copies = trained.map(|(name, tensor)| {
            let copy = tensor.f_detach()?.f_add_scalar(0)?;
            Ok::<_, tch::TchError>((name.clone(), copy))
        });
        Ok(copies
            .collect::<Result<_, _>>()
            .map_err(model::Error::from)?)
    }

    pub(super) fn write_checkpoint(
        &mut self,
        metrics: &v1::EpochMetrics,
        scored: &[Scored],
    ) -> Result<Vec<WorkerFile>, Error> {
        let folder = Path::new(&self.job.work_dir)
            .join(format!("epoch-{}-{}", self.job.attempt, metrics.epoch));
        self.calibration = calibrate(scored);
        let manifest = Manifest {
            format_version: checkpoint::FORMAT_VERSION,
            visage_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: "resnet18".to_owned(),
            training: self.job.training.clone(),
            epoch: metrics.epoch,
            metrics: proto::to_json(metrics),
            input: self.loader.input.clone(),
            label: LabelScale {
                scale: 1.0,
                offset: 0.0,
            },
            calibration: self.calibration.clone(),
            dataset: DatasetRecord {
                path: self.spec.dataset.path.clone(),
                digest: self.dataset.digest.clone(),
                val_digest: self.dataset.val_digest.clone(),
                mean_training_age: Some(self.mean_age),
            },
            spec: proto::to_json(&self.spec.to_message()),
            sha256: BTreeMap::new(),
        };
        let written = checkpoint::write(&folder, &self.state, manifest)?;
        let files = written.into_iter().map(|file| WorkerFile {
            name: file.name.to_owned(),
            path: file.path.to_string_lossy().into_owned(),
            size_bytes: file.size,
            sha256: file.sha256,
        });
        Ok(files.collect())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one message, in its order"
    )]
    fn progress(
        &self,
        phase: &str,
        epoch: u32,
        step: usize,
        steps: usize,
        started: Instant,
        images_per_second: f64,
        train_loss: f64,
    ) -> v1::Progress {
        let within = step as f64 / steps.max(1) as f64;
        let fraction = (f64::from(epoch - 1) + within) / f64::from(self.spec.max_epochs);
        let remaining = started.elapsed().as_secs_f64() * (1.0 - fraction) / fraction;
        v1::Progress {
            epoch,
            max_epochs: self.spec.max_epochs,
            step: step as u32,
            steps: steps as u32,
            phase: phase.to_owned(),
            fraction,
            eta: duration_message(remaining),
            images_per_second,
            train_loss: Some(train_loss).filter(|loss| loss.is_finite()),
        }
    }
}

/// Predictions for the pictures that could be read, and the positions of these.
type Evaluated = (Vec<Scored>, Vec<u32>);

/// Refuses a pass in which too many images, or all, could not be read.
fn check_skipped(skipped: &Skipped, epoch: u32, all: usize, spec: &Spec) -> Result<(), Error> {
    let limit = spec.dataset.max_reject_share;
    if skipped.count as f64 <= limit * all as f64 && (skipped.count as usize) < all {
        return Ok(());
    }
    Err(Error::TooManySkipped {
        epoch,
        skipped: skipped.count,
        all,
        limit,
        example: skipped.example.clone().unwrap_or_default(),
    })
}

/// Chooses where the features of all images lie, and says so in the log.
fn place_of_features(
    job: &Job,
    spec: &Spec,
    device: Device,
    precision: Precision,
    images: usize,
) -> Place {
    let needed = feature_cache::bytes_of_features(spec.trained, spec.input_size, precision, images);
    let Some(needed) = needed else {
        tracing::info!("no feature cache: all layers are trained");
        return Place::Nowhere;
    };
    let room = Room {
        budget: spec.cache_budget,
        memory: free_memory(),
        disk: free_disk(Path::new(&job.work_dir)),
    };
    let (place, why) = feature_cache::choose(spec.feature_cache, device, needed, room);
    tracing::info!(?place, ?precision, "feature cache: {why}");
    place
}

/// For a pass whose features are not needed again.
fn no_cache() -> FeatureCache {
    FeatureCache::new(Place::Nowhere, Device::Cpu, 0, PathBuf::new())
}

fn pictures(samples: &[Sample]) -> Arc<Vec<Picture>> {
    let picture = |sample: &Sample| Picture {
        path: sample.path.clone(),
        age: sample.age,
    };
    Arc::new(samples.iter().map(picture).collect())
}

fn mean_age(samples: &[Sample]) -> f64 {
    samples
        .iter()
        .map(|sample| f64::from(sample.age))
        .sum::<f64>()
        / samples.len() as f64
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

/// `predicted - ages`; both must be `[N]`, for libtorch would silently broadcast `[N, 1]` against `[N]` to `[N, N]`.
fn subtract(predicted: &Tensor, ages: &Tensor) -> Result<Tensor, Error> {
    assert_eq!(
        predicted.size(),
        ages.size(),
        "predictions and ages must have the same shape"
    );
    Ok(predicted.f_sub(ages).map_err(model::Error::from)?)
}

fn score(predicted: &Tensor, ages: &[f32]) -> Result<Vec<Scored>, Error> {
    let predicted = predicted
        .f_detach()
        .and_then(|tensor| tensor.f_to_device(Device::Cpu));
    let predicted =
        Vec::<f32>::try_from(predicted.map_err(model::Error::from)?).map_err(model::Error::from)?;
    let pairs = ages.iter().zip(predicted);
    let scored = pairs.map(|(age, predicted)| Scored {
        age: f64::from(*age),
        predicted: f64::from(predicted),
    });
    Ok(scored.collect())
}

fn duration_message(seconds: f64) -> Option<prost_types::Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    prost_types::Duration::try_from(duration).ok()
}
