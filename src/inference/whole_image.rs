//! Prediction on an image as a whole.

use image::RgbImage;

use super::{
    Error, Image, Interval, Prediction, RenderedExplanation,
    admission::Permit,
    annotate,
    explain::{self, Explanation},
    job::Job,
    observer,
    pipeline::{Computed, Pipeline},
};

/// Predicts one image, and draws on it if the request asks for that.
///
/// # Errors
/// An image that cannot be read, a deadline that has passed, or a model that does not compute.
pub(super) async fn predict(
    pipeline: &Pipeline,
    job: Job,
    image: Image,
    permit: Permit,
) -> Result<Prediction, Error> {
    let computed = pipeline.compute(job.clone(), image, permit).await?;
    // The permit is released at the end: the image takes memory until it has been drawn.
    let Computed {
        decoded,
        output,
        permit: _permit,
    } = computed;
    let age = job
        .check_age(output.age, decoded.is_preprocessed)
        .inspect_err(observer::rejected_for)?;
    let interval = job.model.interval(job.options.interval_level, age);
    let (annotate, explanation) = (job.options.annotate, output.explanation);
    let (annotated_png, explanation) = if annotate || job.options.explain {
        let canvas = decoded.canvas;
        let work = move || draw(canvas, annotate, age, interval, explanation);
        pipeline.run(work).await?
    } else {
        (None, None)
    };
    if !decoded.is_preprocessed {
        observer::image_decoded(decoded.elapsed);
    }
    observer::image_dequeued(output.queue);
    Ok(Prediction {
        age,
        interval,
        dimensions: decoded.dimensions,
        annotated_png,
        explanation,
        faces: None,
        cached: None,
        decode: decoded.elapsed,
        queue: output.queue,
        inference: output.inference,
    })
}

/// Draws the age and the explanation; preprocessed input has no canvas to draw on.
fn draw(
    canvas: Option<RgbImage>,
    annotate: bool,
    age: f64,
    interval: Option<Interval>,
    explanation: Option<Explanation>,
) -> (Option<Vec<u8>>, Option<RenderedExplanation>) {
    let explanation = explanation.map(|explanation| RenderedExplanation {
        png: canvas
            .clone()
            .map(|canvas| explain::draw(canvas, &explanation)),
        explanation,
    });
    let annotated = canvas
        .filter(|_| annotate)
        .map(|canvas| annotate::draw(canvas, age, interval));
    (annotated, explanation)
}
