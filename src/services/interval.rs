//! The level of prediction intervals that a client asks for, against those that a version has.

use tonic::Status;

use crate::{inference::ServedModel, model::calibration::DEFAULT_LEVEL};

use super::status;

/// Reads an `interval_level`, which the request has as `field`: the smallest level of the version that is at least the wanted one. Without a wish it is the default, or `None` where the
/// version cannot give that.
///
/// # Errors
/// INVALID_ARGUMENT for a level out of range, or above all that the version has.
pub(super) fn interval_level(
    model: &ServedModel,
    wanted: Option<f64>,
    field: &str,
) -> Result<Option<f64>, Status> {
    let calibration = model.calibration.as_ref();
    let Some(wanted) = wanted else {
        return Ok(calibration.and_then(|calibration| calibration.level_for(DEFAULT_LEVEL)));
    };
    let refuse = |description: String| Err(status::invalid(field, &description));
    let is_share = wanted > 0.0 && wanted < 1.0;
    if !is_share {
        return refuse(format!(
            "{wanted} is out of range; it must be above 0 and below 1"
        ));
    }
    let Some(calibration) = calibration else {
        return refuse(format!(
            "{wanted} cannot be given: {} has no intervals, for its training had too few validation images",
            model.name
        ));
    };
    match calibration.level_for(wanted) {
        Some(level) => Ok(Some(level)),
        None => refuse(format!(
            "{wanted} cannot be given by {}; its {} validation images are enough for {}",
            model.name,
            calibration.images,
            calibration.listed_levels()
        )),
    }
}
