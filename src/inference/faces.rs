//! Prediction on each face of an image: the decoding threads decode the image, find its faces and
//! cut them out at the network's size, and each face is predicted like an image.
//!
//! An image with thirty faces needs thirty forward passes, but was admitted as one image. Its own
//! permit lets one face at a time into the engine's queue, which is enough to finish however full
//! the server is. For more at once it takes permits that are free at that moment, but never waits
//! for one while it holds another: so no two images can wait for each other, and every queue entry
//! has a permit, which keeps the queue bounded. It takes [`FACES_AT_ONCE`] at most, so that a crowd
//! leaves room for other clients, who are refused when there is no permit.
//!
//! The faces of [`MAX_SEARCHES`] images are in memory at once; further images wait in encoded form.
//! The images ahead of them only wait for the engine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use image::RgbImage;
use tokio::sync::Semaphore;

use super::{
    Error, FacePrediction, Image, Prediction, RenderedExplanation,
    admission::Permit,
    annotate::{self, FaceMark},
    explain,
    job::Job,
    model_io::{ModelInput, ModelOutput},
    observer,
    pipeline::Pipeline,
};
use crate::{
    detection::{self, Face},
    imaging::{self, Limits, Preprocessor, Reservation},
};

/// Images whose faces are in memory at once: 64 faces of 224×224 pixels take 10 MB.
pub(super) const MAX_SEARCHES: usize = 8;
/// Faces of an image in the engine's queue at once.
const FACES_AT_ONCE: usize = 8;

/// Limits the number of images whose faces are in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct FaceSlots(Arc<Semaphore>);

impl FaceSlots {
    pub(super) fn new() -> Self {
        FaceSlots(Arc::new(Semaphore::new(MAX_SEARCHES)))
    }
}

/// An image whose faces have been found.
struct SearchedImage {
    dimensions: (u32, u32),
    /// Each face with its part of the image at the network's size.
    faces: Vec<(Face, RgbImage)>,
    /// A small copy to draw on, if the request asks for drawings.
    canvas: Option<RgbImage>,
    elapsed: Duration,
}

/// A face that the engine has computed.
struct ComputedFace {
    face: Face,
    crop: RgbImage,
    output: ModelOutput,
}

/// Finds and predicts the faces of one image.
///
/// # Errors
/// An image that cannot be read, a deadline that has passed, or a model that does not compute.
pub(super) async fn predict(
    pipeline: &Pipeline,
    slots: &FaceSlots,
    job: Job,
    image: Image,
    permit: Permit,
) -> Result<Prediction, Error> {
    let batch_slot = pipeline.batch_slot(job.priority).await;
    let _slot = slots.0.acquire().await;
    let searched = {
        let (job, limits) = (job.clone(), pipeline.limits);
        // The pool holds the permit as long as it holds the image, also after a cancellation.
        let client = job.client.clone();
        let search = move |is_dropped: &dyn Fn() -> bool| {
            Ok((search(&job, &image, limits, is_dropped)?, permit))
        };
        pipeline.run_until_dropped(&client, search).await
    };
    let (searched, permit) = searched?;
    let SearchedImage {
        dimensions,
        faces,
        canvas,
        elapsed,
    } = searched;
    drop(batch_slot);
    let (computed, permit) = compute(pipeline, &job, faces, permit).await?;
    let longest = |of: fn(&ModelOutput) -> Duration| {
        let times = computed.iter().map(|face| of(&face.output));
        times.max().unwrap_or_default()
    };
    let queue = longest(|output| output.queue);
    let inference = longest(|output| output.inference);
    let finish = move || finish(&job, dimensions.0, computed, canvas);
    // The permit is held until here: the images take memory until they have been drawn.
    let (faces, annotated_png) = pipeline.run(finish).await??;
    drop(permit);
    let first = faces.first();
    Ok(Prediction {
        age: first.map_or(f64::NAN, |face| face.age),
        interval: first.and_then(|face| face.interval),
        dimensions,
        annotated_png,
        explanation: None,
        faces: Some(faces),
        cached: None,
        decode: elapsed,
        queue,
        inference,
    })
}

/// Computes the faces in groups, as many at once as there are permits. Returns one permit.
async fn compute(
    pipeline: &Pipeline,
    job: &Job,
    faces: Vec<(Face, RgbImage)>,
    permit: Permit,
) -> Result<(Vec<ComputedFace>, Option<Permit>), Error> {
    let mut computed = Vec::with_capacity(faces.len());
    let mut faces = faces.into_iter();
    let mut own = Some(permit);
    while faces.len() > 0 {
        let additional = faces.len().min(FACES_AT_ONCE) - 1;
        let mut permits = pipeline
            .admission
            .try_acquire_up_to(additional, job.priority);
        permits.extend(own.take());
        let group: Vec<_> = faces.by_ref().take(permits.len()).collect();
        let mut results = Vec::with_capacity(group.len());
        for ((_, crop), permit) in group.iter().zip(permits) {
            let input = ModelInput::Image(crop.clone());
            results.push(pipeline.engine.submit(job.clone(), input, permit)?);
        }
        for ((face, crop), result) in group.into_iter().zip(results) {
            let (output, permit) = result.await.map_err(|_| Error::EngineGone)??;
            observer::image_dequeued(output.queue);
            own.get_or_insert(permit);
            computed.push(ComputedFace { face, crop, output });
        }
    }
    Ok((computed, own))
}

/// Decodes an image, finds its faces and cuts them out; stops between two steps once the result is
/// no longer needed.
fn search(
    job: &Job,
    image: &Image,
    limits: Limits,
    is_dropped: &dyn Fn() -> bool,
) -> Result<SearchedImage, Error> {
    let started = Instant::now();
    let is_stopped = || job.drop_reason(is_dropped()).is_some();
    let stopped = || {
        let reason = job.drop_reason(is_dropped());
        reason.into_iter().for_each(observer::rejected);
        Error::DeadlineExceeded
    };
    if is_stopped() {
        return Err(stopped());
    }
    let (image, _memory) = decode(job, image, limits).inspect_err(observer::rejected_for)?;
    let decoded = started.elapsed();
    observer::decoded(job, started);
    if is_stopped() {
        return Err(stopped());
    }
    let found = detection::find(&image, &is_stopped).ok_or_else(stopped)?;
    observer::faces_detected(job, started + decoded, found.len());
    let mut preprocessor = Preprocessor::new();
    let mut faces = Vec::with_capacity(found.len());
    for face in found {
        if is_stopped() {
            return Err(stopped());
        }
        let crop = detection::crop(&image, face.crop);
        faces.push((face, preprocessor.resize(crop, job.model.input.size)));
    }
    observer::image_decoded(decoded);
    Ok(SearchedImage {
        dimensions: image.dimensions(),
        faces,
        canvas: job.keeps_image().then(|| annotate::fit(&image)),
        elapsed: started.elapsed(),
    })
}

fn decode(job: &Job, image: &Image, limits: Limits) -> Result<(RgbImage, Reservation), Error> {
    let index = job.index;
    match image {
        Image::Encoded(bytes) => imaging::decode_reserved(bytes, &limits)
            .map_err(|source| Error::Image { index, source }),
        Image::TensorBytes(_) | Image::TensorValues(..) => Err(Error::Pixels {
            index,
            reason: "faces can be found in encoded images only, not in preprocessed input"
                .to_owned(),
        }),
    }
}

type Finished = (Vec<FacePrediction>, Option<Vec<u8>>);

/// Turns outputs into predictions, and draws.
fn finish(
    job: &Job,
    image_width: u32,
    computed: Vec<ComputedFace>,
    canvas: Option<RgbImage>,
) -> Result<Finished, Error> {
    let mut faces = Vec::with_capacity(computed.len());
    for ComputedFace { face, crop, output } in computed {
        let age = job.check_age(output.age, false)?;
        faces.push(FacePrediction {
            face,
            age,
            interval: job.model.interval(job.options.interval_level, age),
            explanation: output.explanation.map(|explanation| RenderedExplanation {
                png: Some(explain::draw(crop, &explanation)),
                explanation,
            }),
        });
    }
    let mark = |face: &FacePrediction| FaceMark {
        square: face.face.crop,
        age: face.age,
        interval: face.interval,
    };
    let annotated_png = canvas.map(|canvas| {
        let marks: Vec<FaceMark> = faces.iter().map(mark).collect();
        annotate::draw_faces(canvas, image_width, &marks)
    });
    Ok((faces, annotated_png))
}
