//! The state of the server at one moment.

use std::time::Instant;

use tonic::Code;

use crate::{
    cli::{
        client::{Client, request},
        commands::top::metrics_page::{self, Page},
        error::Error,
    },
    proto::{
        open_inference::{ModelStatistics, ModelStatisticsRequest},
        v1::{
            GetServerInfoRequest, GetServerInfoResponse, ListTrainingsRequest, Training,
            TrainingState,
        },
    },
};

/// Number of requested trainings; active ones are among the latest.
const MAX_TRAININGS: i32 = 100;

#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) taken: Instant,
    pub(super) info: GetServerInfoResponse,
    pub(super) trainings: Vec<Training>,
    pub(super) versions: Vec<ModelStatistics>,
    /// The metrics page, or the reason why it is missing.
    pub(super) page: Result<Page, String>,
}

impl Sample {
    /// Queries the server. `metrics` overrides the address of its metrics page.
    ///
    /// # Errors
    /// Errors of the calls; a missing page is not an error.
    pub(super) async fn take(client: &Client, metrics: Option<&str>) -> Result<Self, Error> {
        let (mut system, mut trainings, mut models) =
            (client.system(), client.trainings(), client.open_inference());
        let (info, trainings, versions) = tokio::join!(
            system.get_server_info(request(GetServerInfoRequest {})),
            trainings.list_trainings(request(ListTrainingsRequest {
                page_size: MAX_TRAININGS,
                ..Default::default()
            })),
            models.model_statistics(request(ModelStatisticsRequest::default())),
        );
        let info = client.message(info)?;
        let address = match metrics {
            Some(address) => Ok(address.to_owned()),
            None => page_address(client.server(), info.http_port),
        };
        let page = match address {
            Err(reason) => Err(reason),
            Ok(address) => {
                let page = metrics_page::fetch(&address, client.credentials()).await;
                page.map_err(|reason| format!("{address}: {reason}"))
            }
        };
        Ok(Sample {
            taken: Instant::now(),
            info,
            trainings: sorted(client.message(trainings)?.trainings),
            versions: match versions {
                // A proxy may forward Visage's own API only.
                Err(status) if status.code() == Code::Unimplemented => Vec::new(),
                versions => client.message(versions)?.model_stats,
            },
            page,
        })
    }
}

/// The port that the server reports, on the host of the API. A host that the server reports could
/// be its loopback.
fn page_address(server: &str, port: u32) -> Result<String, String> {
    let Some((scheme, authority)) = server.split_once("://") else {
        return Err("the metrics need the HTTP port; set --metrics".to_owned());
    };
    let host = authority.rsplit_once(':').map(|(host, _)| host);
    match host {
        Some(host) if port != 0 => Ok(format!("{scheme}://{host}:{port}")),
        _ => Err("the server reports no HTTP port".to_owned()),
    }
}

/// Trainings that use the device first, then the queue in its order, then the others.
fn sorted(mut trainings: Vec<Training>) -> Vec<Training> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_page_is_on_the_host_of_the_api() {
        let address = page_address("http://gpu-1:50051", 50052);
        assert_eq!(address.unwrap(), "http://gpu-1:50052");
        let address = page_address("https://[::1]:50051", 9091);
        assert_eq!(address.unwrap(), "https://[::1]:9091");
        let old_server = page_address("http://gpu-1:50051", 0);
        assert!(old_server.is_err());
    }

    #[test]
    fn trainings_on_the_device_come_first_then_the_queue() {
        let training = |name: &str, state: TrainingState, queue_position| Training {
            name: name.to_owned(),
            state: state.into(),
            queue_position,
            ..Default::default()
        };
        let ordered = sorted(vec![
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
