//! The way of an image whose faces are to be found: decoded and searched on the decoding threads, its faces cut out at the network's size, and each predicted.
//!
//! An image with thirty faces is thirty forward passes, and admission knew of one. Its own permit lets one face at a time into the engine's queue, which is enough
//! to come to an end however full the server is. For more at once it takes those permits that are free at that moment and never waits for any while
//! it holds one, so no two images can wait for each other, and whatever is in the queue still has a permit, so the queue's bound holds. It takes [`FACES_AT_ONCE`] at
//! most, so that a crowd leaves room for others, who are refused when there is no permit.
//!
//! The faces of [`MOST_SEARCHES`] images are in memory at once; other images wait as the files that they came as. What is ahead of them waits for the engine alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use image::RgbImage;
use tokio::sync::oneshot;

use crate::{
    detection::{self, Face},
    imaging::{self, Limits, Preprocessor},
    telemetry::metrics::{self, RejectionReason},
};

use super::{
    Error, ServedModel,
    admission::Permit,
    annotate::{self, Marked},
    decoding::Image,
    engine::Output,
    explain,
    input::Input,
    predictor::{
        DecodeJob, PredictOptions, Prediction, Predictor, RenderedExplanation, finite_age, interval,
    },
    queue::{QueueEntry, unwanted},
    spans,
};

/// Images whose faces are in memory at once: 64 faces of 224×224 pixels are 10 MB.
pub(super) const MOST_SEARCHES: usize = 8;
/// Faces of an image in the engine's queue at once.
const FACES_AT_ONCE: usize = 8;

/// The answer for one face.
#[derive(Debug, Clone)]
pub struct FacePrediction {
    /// Where it is, and how sure that is.
    pub face: Face,
    /// Age in years.
    pub age: f64,
    /// Lower and upper end in years, and the share of true ages between them.
    pub interval: Option<(f64, f64, f64)>,
    /// Where the age comes from.
    pub explanation: Option<RenderedExplanation>,
}

/// An image that was searched.
struct Searched {
    dimensions: (u32, u32),
    /// Each face with its part of the image at the network's size.
    faces: Vec<(Face, RgbImage)>,
    /// To draw on, where that was asked for.
    image: Option<RgbImage>,
    seconds: Duration,
    permit: Permit,
}

impl Predictor {
    /// Finds and predicts the faces of one image.
    ///
    /// # Errors
    /// An image that cannot be read, a deadline that passed, or a model that does not compute.
    pub(super) async fn predict_faces(&self, job: DecodeJob) -> Result<Prediction, Error> {
        let (index, deadline, priority) = (job.index, job.deadline, job.priority);
        let (options, client) = (job.options, job.client.clone());
        let (model, trace) = (Arc::clone(&job.model), job.trace.clone());
        let turn = self.turn(priority).await;
        let _searching = self.searches.acquire().await;
        let Searched {
            dimensions,
            faces,
            image,
            seconds,
            permit,
        } = self.search(job).await?;
        drop(turn);
        let mut predicted: Vec<(Face, RgbImage, Output)> = Vec::with_capacity(faces.len());
        let mut faces = faces.into_iter();
        let mut own = Some(permit);
        while faces.len() > 0 {
            let mut permits = self
                .admission
                .admit_more(faces.len().min(FACES_AT_ONCE) - 1, priority);
            permits.extend(own.take());
            let together: Vec<(Face, RgbImage)> = faces.by_ref().take(permits.len()).collect();
            let mut pending = Vec::with_capacity(together.len());
            for ((_, chip), permit) in together.iter().zip(permits) {
                let (reply, answer) = oneshot::channel();
                self.engine.submit(QueueEntry {
                    input: Input::Image(chip.clone()),
                    average_flip: options.average_flip,
                    model: Arc::clone(&model),
                    explain: options.explain,
                    deadline,
                    reply,
                    priority,
                    client: client.clone(),
                    enqueued: Instant::now(),
                    trace: trace.clone(),
                    permit,
                })?;
                pending.push(answer);
            }
            for ((face, chip), answer) in together.into_iter().zip(pending) {
                let (output, permit) = answer.await.map_err(|_| Error::EngineGone)??;
                metrics::image_dequeued(output.queue);
                own.get_or_insert(permit);
                predicted.push((face, chip, output));
            }
        }
        let longest = |of: fn(&Output) -> Duration| {
            let times = predicted.iter().map(|(_, _, output)| of(output));
            times.max().unwrap_or_default()
        };
        let (queue, inference) = (
            longest(|output| output.queue),
            longest(|output| output.inference),
        );
        let conclude = {
            let model = Arc::clone(&model);
            move || conclude(&model, options, index, dimensions.0, predicted, image)
        };
        // The permit is held until here: images are drawn.
        let (faces, annotated_png) = self.compute(conclude).await??;
        drop(own);
        let first = faces.first();
        Ok(Prediction {
            age: first.map_or(f64::NAN, |face| face.age),
            interval: first.and_then(|face| face.interval),
            dimensions,
            annotated_png,
            explanation: None,
            faces: Some(faces),
            cached: None,
            decode: seconds,
            queue,
            inference,
        })
    }

    /// Decodes and searches on the pool; dropping the future ends it between two steps.
    async fn search(&self, job: DecodeJob) -> Result<Searched, Error> {
        let limits = self.limits;
        let (reply, answer) = oneshot::channel::<Result<Searched, Error>>();
        self.pool.spawn(move || {
            let searched = search(job, limits, &|| reply.is_closed());
            // A client that has left needs no answer.
            drop(reply.send(searched));
        });
        answer.await.map_err(|_| Error::EngineGone)?
    }
}

fn search(job: DecodeJob, limits: Limits, is_left: &dyn Fn() -> bool) -> Result<Searched, Error> {
    let begun = Instant::now();
    let deadline = job.deadline;
    let stop = || unwanted(deadline, is_left()).is_some();
    let stopped = || {
        let reason = unwanted(deadline, is_left());
        reason.into_iter().for_each(metrics::prediction_rejected);
        Error::DeadlineExceeded
    };
    if stop() {
        return Err(stopped());
    }
    let image = decode(&job, limits).inspect_err(|_| {
        metrics::prediction_rejected(RejectionReason::InvalidImage);
    })?;
    let decoded = begun.elapsed();
    let trace = job.trace.as_ref();
    spans::step(trace, "decode", job.index, begun);
    if stop() {
        return Err(stopped());
    }
    let found = detection::find(&image, &stop).ok_or_else(stopped)?;
    metrics::faces_found(found.len(), begun.elapsed() - decoded);
    spans::step(trace, "detect", job.index, begun + decoded);
    let mut preprocessor = Preprocessor::new();
    let mut faces = Vec::with_capacity(found.len());
    for face in found {
        if stop() {
            return Err(stopped());
        }
        let chip = detection::crop(&image, face.crop);
        faces.push((face, preprocessor.resize(chip, job.model.input.size)));
    }
    metrics::image_decoded(decoded);
    Ok(Searched {
        dimensions: image.dimensions(),
        faces,
        image: job.keeps_image().then(|| annotate::fit(&image)),
        seconds: begun.elapsed(),
        permit: job.permit,
    })
}

fn decode(job: &DecodeJob, limits: Limits) -> Result<RgbImage, Error> {
    let index = job.index;
    match &job.image {
        Image::Encoded(bytes) => {
            imaging::decode(bytes, &limits).map_err(|source| Error::Image { index, source })
        }
        Image::TensorBytes(_) | Image::TensorValues(..) => Err(Error::Pixels {
            index,
            reason: "faces are looked for in encoded images, not in prepared numbers".to_owned(),
        }),
    }
}

type Concluded = (Vec<FacePrediction>, Option<Vec<u8>>);

/// Makes answers of what the network says, and draws what is to be drawn.
fn conclude(
    model: &ServedModel,
    options: PredictOptions,
    index: usize,
    image_width: u32,
    predicted: Vec<(Face, RgbImage, Output)>,
    image: Option<RgbImage>,
) -> Result<Concluded, Error> {
    let mut faces = Vec::with_capacity(predicted.len());
    for (face, chip, output) in predicted {
        let age = finite_age(model, index, output.age, false)?;
        faces.push(FacePrediction {
            face,
            age,
            interval: interval(model, options.interval_level, age),
            explanation: output.explanation.map(|explanation| RenderedExplanation {
                png: Some(explain::draw(chip, &explanation)),
                explanation,
            }),
        });
    }
    let marked = |face: &FacePrediction| Marked {
        square: face.face.crop,
        age: face.age,
        interval: face.interval,
    };
    let annotated_png = image.map(|image| {
        let marked: Vec<Marked> = faces.iter().map(marked).collect();
        annotate::draw_faces(image, image_width, &marked)
    });
    Ok((faces, annotated_png))
}
