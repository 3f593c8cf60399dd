//! The exported text of the recorded metrics.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    exporter::{for_test, install},
    metrics::{
        self, EpochReport, FAMILIES, ImageOutcome, RejectionReason, RpcCode, SkipReason, SpanLoss,
        StopReason, TrainingPhase, TrainingState,
    },
};

/// The text of a scrape after `record` ran with its own recorder.
fn scrape(record: impl FnOnce()) -> String {
    let (recorder, handle) = for_test();
    ::metrics::with_local_recorder(&recorder, || {
        record();
        handle.render()
    })
}

fn record_everything() {
    let method: Arc<str> = Arc::from("visage.v1.PredictionService/Predict");
    metrics::rpc_known(&method);
    metrics::rpc_started(&method);
    metrics::rpc_finished(&method, RpcCode::NotFound, Duration::from_millis(3));
    metrics::http_known("/v2");
    metrics::http_finished("/v2", RpcCode::Ok, Duration::from_millis(2));
    metrics::image_finished(ImageOutcome::Ok);
    metrics::prediction_rejected(RejectionReason::QueueFull);
    metrics::image_decoded(Duration::from_millis(4));
    metrics::image_dequeued(Duration::from_millis(1));
    metrics::batch_computed(3, Duration::from_millis(12));
    metrics::prediction_queue_depth(2);
    metrics::trainings_in_state(TrainingState::Succeeded, 5);
    metrics::training_queue_length(1);
    metrics::training_started(0, 10);
    metrics::epoch_finished(&EPOCH);
    metrics::training_phase(TrainingPhase::Forward, Duration::from_millis(250));
    metrics::training_images(608);
    metrics::training_images_skipped(SkipReason::Undecodable, 2);
    metrics::training_halted();
    metrics::training_finished(StopReason::EarlyStopped);
    metrics::training_worker_restarted();
    metrics::live_model_changed("age", None, Some(1));
    metrics::model_versions(1);
    metrics::model_loaded(Duration::from_secs(2));
    metrics::trace_spans_sent(3);
    metrics::trace_spans_lost(SpanLoss::QueueFull, 1);
    metrics::build_info("0.1.0", "2.11.0", "cpu");
}

const EPOCH: EpochReport = EpochReport {
    epoch: 1,
    training_loss: 580.8863,
    validation_loss: Some(184.5743),
    rmse_years: Some(13.5858),
    mae_years: Some(10.25),
    learning_rate: 0.0001,
    images_per_second: 81.5,
    data_wait_share: 0.02,
};

#[test]
fn every_metric_is_rendered_with_help_and_type() {
    let text = scrape(record_everything);
    for family in FAMILIES {
        let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        assert_eq!(text.matches(&head).count(), 1, "{head}{text}");
    }
    let heads = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .count();
    assert_eq!(heads, FAMILIES.len(), "a recorded metric is not declared");
}

#[test]
fn metrics_are_in_the_order_of_their_names() {
    let text = scrape(record_everything);
    let heads: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# HELP "))
        .collect();
    assert!(heads.is_sorted());
}

#[test]
fn known_series_are_zero_before_the_first_event() {
    let text = scrape(|| ());
    for line in [
        "visage_predict_images_total{outcome=\"invalid_image\"} 0",
        "visage_predict_inference_seconds_bucket{le=\"0.0001\"} 0",
        "visage_predict_inference_seconds_count 0",
        "visage_predict_queue_depth 0",
        "visage_training_phase_seconds_total{phase=\"checkpoint\"} 0",
        "visage_trainings{state=\"queued\"} 0",
        "visage_trainings_finished_total{stop_reason=\"worker_died\"} 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(
        !text.contains("\nvisage_training_mae_years "),
        "there is no error before an epoch"
    );
}

#[test]
fn durations_shorter_than_a_second_are_not_lost() {
    let text = scrape(|| {
        for _ in 0..3 {
            metrics::training_phase(TrainingPhase::Data, Duration::from_millis(500));
        }
    });
    assert!(
        text.contains("\nvisage_training_phase_seconds_total{phase=\"data\"} 1.5\n"),
        "{text}"
    );
}

#[test]
fn histogram_counts_a_bound_as_inside_its_bucket() {
    let text = scrape(|| metrics::image_dequeued(Duration::from_millis(3)));
    for line in [
        "visage_predict_queue_seconds_bucket{le=\"0.002\"} 0",
        "visage_predict_queue_seconds_bucket{le=\"0.003\"} 1",
        "visage_predict_queue_seconds_bucket{le=\"+Inf\"} 1",
        "visage_predict_queue_seconds_sum 0.003",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn replaced_model_version_disappears() {
    let text = scrape(|| {
        metrics::live_model_changed("age", None, Some(3));
        metrics::live_model_changed("age", Some(3), Some(4));
    });
    let live: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("visage_live_model_info"))
        .collect();
    assert_eq!(
        live,
        ["visage_live_model_info{model=\"age\",version=\"4\"} 1"]
    );
}

#[test]
fn errors_of_a_training_remain_until_the_next_starts() {
    let line = "\nvisage_training_loss_square_years{split=\"validation\"} 184.5743\n";
    let ended = || {
        metrics::training_started(0, 1);
        metrics::epoch_finished(&EPOCH);
        metrics::training_halted();
    };
    let text = scrape(ended);
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("\nvisage_training_images_per_second 0\n"),
        "{text}"
    );

    let text = scrape(|| {
        ended();
        metrics::training_started(0, 2);
    });
    assert!(
        !text.contains("visage_training_loss_square_years{"),
        "{text}"
    );
    assert!(text.contains("\nvisage_training_max_epochs 2\n"), "{text}");
}

#[test]
fn process_is_observed_at_each_scrape() {
    let text = scrape(|| ());
    let resident = text
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .and_then(|bytes| bytes.parse::<f64>().ok());
    assert!(resident.is_some_and(|bytes| bytes > 100_000.0), "{text}");
    assert!(text.contains("\nprocess_start_time_seconds 1"), "{text}");
}

#[test]
fn second_install_returns_the_same_metrics() {
    let first = install().unwrap();
    metrics::training_images_skipped(SkipReason::TooLarge, 7);
    let second = install().unwrap();
    let line = "\nvisage_training_skipped_images_total{reason=\"too_large\"} 7\n";
    assert!(first.render().contains(line));
    assert!(second.render().contains(line));
}

#[tokio::test]
async fn upkeep_ends_with_the_shutdown() {
    let (_recorder, handle) = for_test();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    handle.upkeep(&shutdown).await;
}

#[test]
fn promtool_accepts_the_text() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "the output of the test shows that promtool is missing"
            )]
            {
                eprintln!("failed to start promtool, so the text is not checked: {error}");
            }
            return;
        }
    };
    let text = scrape(record_everything);
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.is_empty(),
        "{complaints}\n{text}"
    );
}
