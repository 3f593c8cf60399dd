//! What the server says at one moment, and what two moments say together.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::proto::{
    open_inference::{ModelStatistics, ModelStatisticsRequest},
    v1::{
        GetServerInfoRequest, GetServerInfoResponse, ListTrainingsRequest, Training, TrainingState,
    },
};

use super::{
    super::{
        Error,
        client::{Client, request},
    },
    page::{self, Histogram, Page},
};

/// Trainings that are asked for: those that live are among the latest.
const TRAININGS: i32 = 100;

/// What the server says at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) taken: Instant,
    pub(super) info: GetServerInfoResponse,
    pub(super) trainings: Vec<Training>,
    pub(super) versions: Vec<ModelStatistics>,
    /// The metrics page, or why there is none.
    pub(super) page: Result<Page, String>,
}

impl Sample {
    /// Asks the server. `metrics` is where its metrics page is, if it is not where the server says.
    ///
    /// # Errors
    /// Those of the calls; a page that is not there is no error.
    pub(super) async fn take(client: &Client, metrics: Option<&str>) -> Result<Self, Error> {
        let (mut system, mut trainings, mut models) =
            (client.system(), client.trainings(), client.open_inference());
        let (info, trainings, versions) = tokio::join!(
            system.get_server_info(request(GetServerInfoRequest {})),
            trainings.list_trainings(request(ListTrainingsRequest {
                page_size: TRAININGS,
                ..Default::default()
            })),
            models.model_statistics(request(ModelStatisticsRequest::default())),
        );
        let info = client.answer(info)?;
        let address = match metrics {
            Some(address) => Ok(address.to_owned()),
            None => page_address(client.server(), info.http_port),
        };
        let page = match address {
            Err(reason) => Err(reason),
            Ok(address) => {
                let page = page::fetch(&address).await;
                page.map_err(|reason| format!("{address}: {reason}"))
            }
        };
        Ok(Sample {
            taken: Instant::now(),
            info,
            trainings: in_order(client.answer(trainings)?.trainings),
            versions: match versions {
                // A proxy in front of the server may let through our own API only.
                Err(status) if status.code() == Code::Unimplemented => Vec::new(),
                versions => client.answer(versions)?.model_stats,
            },
            page,
        })
    }
}

/// The port that the server says, on the host that answers our calls: the server's own words may mean another machine's loopback.
fn page_address(server: &str, port: u32) -> Result<String, String> {
    let authority = server.strip_prefix("http://").unwrap_or(server);
    let host = authority.rsplit_once(':').map(|(host, _)| host);
    match host {
        Some(host) if port != 0 => Ok(format!("{host}:{port}")),
        _ => Err("the server does not say where it is".to_owned()),
    }
}

/// Those that have the device first, then the queue in its order, then the others as they came.
fn in_order(mut trainings: Vec<Training>) -> Vec<Training> {
    trainings.sort_by_key(|training| match training.state() {
        TrainingState::Preparing
        | TrainingState::Running
        | TrainingState::Pausing
        | TrainingState::Stopping
        | TrainingState::Cancelling => (0, 0),
        TrainingState::Queued => (1, training.queue_position),
        TrainingState::Paused => (2, 0),
        TrainingState::Succeeded
        | TrainingState::Failed
        | TrainingState::Cancelled
        | TrainingState::Unspecified => (3, 0),
    });
    trainings
}

/// Labels of the calls that predict.
const PREDICT: [&str; 2] = [
    "method=\"visage.v1.PredictionService/Predict\"",
    "method=\"inference.GRPCInferenceService/ModelInfer\"",
];

/// What came between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    /// Predictions that were answered, calls in each second.
    pub(super) answered: f64,
    /// Predictions that were not, calls in each second.
    pub(super) failed: f64,
    /// Images that got an age in each second.
    pub(super) images: f64,
    /// How long things took: what, and the histogram.
    pub(super) times: Vec<(&'static str, Histogram)>,
    /// Images in a forward pass.
    pub(super) batch: Option<f64>,
}

impl Rates {
    /// Without an earlier moment: no rates, and times since the server began.
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
        let calls = "visage_rpc_requests_total";
        let over_http = "visage_http_requests_total";
        let infer = "route=\"/v2/models/{model}/infer\"";
        let ok = "code=\"ok\"";
        let all = |page: &Page, with: &[&str], without: &[&str]| {
            let grpc = PREDICT.iter().map(|method| {
                let with: Vec<&str> = with.iter().copied().chain([*method]).collect();
                page.sum(calls, &with, without)
            });
            let with_route: Vec<&str> = with.iter().copied().chain([infer]).collect();
            grpc.sum::<f64>() + page.sum(over_http, &with_route, without)
        };
        let histogram = |name: &str, with: &[&str]| {
            let then = before.histogram(name, with);
            page.histogram(name, with).since(&then)
        };
        let times = vec![
            (
                "call",
                histogram("visage_rpc_duration_seconds", &PREDICT[..1]),
            ),
            ("decode", histogram("visage_predict_decode_seconds", &[])),
            ("queue", histogram("visage_predict_queue_seconds", &[])),
            (
                "forward",
                histogram("visage_predict_inference_seconds", &[]),
            ),
        ];
        let size = "visage_predict_batch_size";
        let change = |name: &str| page.value(name) - before.value(name);
        let (images, passes) = (
            change(&format!("{size}_sum")),
            change(&format!("{size}_count")),
        );
        Rates {
            answered: rate(&|page| all(page, &[ok], &[])),
            failed: rate(&|page| all(page, &[], &[ok])),
            images: rate(&|page| page.sum("visage_predict_images_total", &["outcome=\"ok\""], &[])),
            times,
            batch: (passes > 0.0).then(|| images / passes),
        }
    }
}

/// A counter's change as a rate; nothing after a restart, which lets it fall.
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
    use super::*;

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
    fn rates_are_of_calls_over_both_protocols() {
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
        let begun = Instant::now();
        let first = sample(begun, &page(100, 10, 0));
        let second = sample(begun + Duration::from_secs(2), &page(140, 20, 6));
        let rates = Rates::between(Some(&first), &second);
        assert_eq!(
            (rates.answered, rates.failed, rates.images),
            (23.0, 5.0, 20.0)
        );
        assert_eq!(rates.batch, Some(4.0));
        let rates = Rates::between(None, &second);
        assert_eq!((rates.answered, rates.batch), (0.0, Some(7.0)));
        // After a restart of the server the counters have fallen.
        let third = sample(begun + Duration::from_secs(3), &page(1, 0, 0));
        assert_eq!(Rates::between(Some(&second), &third).answered, 0.0);
    }

    #[test]
    fn metrics_page_is_on_the_host_that_is_called() {
        let address = page_address("http://gpu-1:50051", 50052);
        assert_eq!(address.unwrap(), "gpu-1:50052");
        let address = page_address("http://[::1]:50051", 9091);
        assert_eq!(address.unwrap(), "[::1]:9091");
        let of_before = page_address("http://gpu-1:50051", 0);
        assert!(of_before.is_err(), "a server of before");
    }

    #[test]
    fn trainings_that_have_the_device_come_first_and_the_queue_in_its_order() {
        let training = |name: &str, state: TrainingState, queue_position| Training {
            name: name.to_owned(),
            state: state.into(),
            queue_position,
            ..Default::default()
        };
        let ordered = in_order(vec![
            training("done", TrainingState::Succeeded, 0),
            training("second", TrainingState::Queued, 2),
            training("paused", TrainingState::Paused, 0),
            training("first", TrainingState::Queued, 1),
            training("runs", TrainingState::Running, 0),
        ]);
        let names: Vec<&str> = ordered
            .iter()
            .map(|training| training.name.as_str())
            .collect();
        assert_eq!(names, ["runs", "first", "second", "paused", "done"]);
    }
}
