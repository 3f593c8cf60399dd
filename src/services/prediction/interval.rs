//! The confidence level of prediction intervals.

use tonic::Status;

use crate::{inference::ServedModel, model::calibration::DEFAULT_LEVEL, services::status};

/// Resolves the requested level, which the request contains as `field`, to the smallest level of
/// the version that is at least as high. Without a request it is the default level, or `None` if
/// the version does not have it.
///
/// # Errors
/// INVALID_ARGUMENT for a level that is out of range, or above all levels of the version.
pub(crate) fn interval_level(
    model: &ServedModel,
    requested: Option<f64>,
    field: &str,
) -> Result<Option<f64>, Status> {
    let calibration = model.calibration.as_ref();
    let Some(level) = requested else {
        return Ok(calibration.and_then(|calibration| calibration.level_for(DEFAULT_LEVEL)));
    };
    let refuse = |description: String| Err(status::invalid(field, &description));
    let is_share = level > 0.0 && level < 1.0;
    if !is_share {
        return refuse(format!("must be above 0 and below 1, got {level}"));
    }
    let Some(calibration) = calibration else {
        return refuse(format!(
            "{level} is not available: {} has no intervals, because its training had too few validation images",
            model.name
        ));
    };
    match calibration.level_for(level) {
        Some(level) => Ok(Some(level)),
        None => refuse(format!(
            "{level} is not available for {}: its {} validation images are enough for {}",
            model.name,
            calibration.images,
            calibration.listed_levels()
        )),
    }
}
