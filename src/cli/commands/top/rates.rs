//! Rates and durations between two samples.

use std::time::Duration;

use crate::{
    cli::commands::top::{
        metrics_page::{Histogram, Page},
        sample::Sample,
    },
    telemetry::metrics::families,
};

/// Labels of the methods that predict.
const PREDICT: [&str; 2] = [
    "method=\"visage.v1.PredictionService/Predict\"",
    "method=\"inference.GRPCInferenceService/ModelInfer\"",
];

#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    /// Successful predictions, in calls per second.
    pub(super) succeeded: f64,
    /// Failed predictions, in calls per second.
    pub(super) failed: f64,
    /// Predicted images per second.
    pub(super) images: f64,
    /// Durations by step of a prediction.
    pub(super) times: Vec<(&'static str, Histogram)>,
    /// Images per forward pass.
    pub(super) batch: Option<f64>,
}

impl Rates {
    /// Without an earlier sample, rates are 0 and times count from the start of the server.
    pub(super) fn between(earlier: Option<&Sample>, now: &Sample) -> Self {
        let Ok(page) = &now.page else {
            return Rates::default();
        };
        let nothing = Page::default();
        let before = earlier.and_then(|sample| sample.page.as_ref().ok());
        let seconds = earlier.map(|sample| now.taken - sample.taken);
        let rate = |of: &dyn Fn(&Page) -> f64| match (before, seconds) {
            (Some(before), Some(seconds)) => per_second(of(page) - of(before), seconds),
            _ => 0.0,
        };
        let before = before.unwrap_or(&nothing);
        let infer = "route=\"/v2/models/{model}/infer\"";
        let ok = "code=\"ok\"";
        let all = |page: &Page, with: &[&str], without: &[&str]| {
            let grpc = PREDICT.iter().map(|method| {
                let with: Vec<&str> = with.iter().copied().chain([*method]).collect();
                page.sum(families::RPC_REQUESTS.name, &with, without)
            });
            let with_route: Vec<&str> = with.iter().copied().chain([infer]).collect();
            grpc.sum::<f64>() + page.sum(families::HTTP_REQUESTS.name, &with_route, without)
        };
        let histogram = |name: &str, with: &[&str]| {
            let then = before.histogram(name, with);
            page.histogram(name, with).since(&then)
        };
        let times = vec![
            (
                "call",
                histogram(families::RPC_DURATION.name, &PREDICT[..1]),
            ),
            ("decode", histogram(families::PREDICT_DECODE.name, &[])),
            ("queue", histogram(families::PREDICT_QUEUE.name, &[])),
            ("forward", histogram(families::PREDICT_INFERENCE.name, &[])),
        ];
        let size = families::PREDICT_BATCH_SIZE.name;
        let change = |name: &str| page.value(name) - before.value(name);
        let (images, passes) = (
            change(&format!("{size}_sum")),
            change(&format!("{size}_count")),
        );
        Rates {
            succeeded: rate(&|page| all(page, &[ok], &[])),
            failed: rate(&|page| all(page, &[], &[ok])),
            images: rate(&|page| page.sum(families::PREDICT_IMAGES.name, &["outcome=\"ok\""], &[])),
            times,
            batch: (passes > 0.0).then(|| images / passes),
        }
    }
}

/// The change of a counter as a rate; 0 after a restart, which resets it.
pub(super) fn per_second(change: f64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        change.max(0.0) / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::proto::v1::GetServerInfoResponse;

    fn sample(taken: Instant, text: &str) -> Sample {
        Sample {
            taken,
            info: GetServerInfoResponse::default(),
            trainings: Vec::new(),
            versions: Vec::new(),
            page: Ok(Page::of(text)),
        }
    }

    #[test]
    fn rates_include_calls_over_both_protocols() {
        let page = |ok: u32, bad: u32, http: u32| {
            format!(
                "visage_rpc_requests_total{{method=\"visage.v1.PredictionService/Predict\",code=\"ok\"}} {ok}\n\
                 visage_rpc_requests_total{{method=\"visage.v1.PredictionService/Predict\",code=\"unavailable\"}} {bad}\n\
                 visage_rpc_requests_total{{method=\"visage.v1.SystemService/GetServerInfo\",code=\"ok\"}} 999\n\
                 visage_http_requests_total{{route=\"/v2/models/{{model}}/infer\",code=\"ok\"}} {http}\n\
                 visage_predict_images_total{{outcome=\"ok\"}} {ok}\n\
                 visage_predict_batch_size_sum {ok}\nvisage_predict_batch_size_count {bad}\n"
            )
        };
        let start = Instant::now();
        let first = sample(start, &page(100, 10, 0));
        let second = sample(start + Duration::from_secs(2), &page(140, 20, 6));
        let rates = Rates::between(Some(&first), &second);
        assert_eq!(
            (rates.succeeded, rates.failed, rates.images),
            (23.0, 5.0, 20.0)
        );
        assert_eq!(rates.batch, Some(4.0));
        let rates = Rates::between(None, &second);
        assert_eq!((rates.succeeded, rates.batch), (0.0, Some(7.0)));
        // After a restart of the server the counters start at 0.
        let third = sample(start + Duration::from_secs(3), &page(1, 0, 0));
        assert_eq!(Rates::between(Some(&second), &third).succeeded, 0.0);
    }
}
