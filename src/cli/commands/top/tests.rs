//! Drawn frames.

use std::time::{Duration, Instant, SystemTime};

use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    layout::Rect,
    style::Color,
};

use crate::{
    cli::commands::top::{
        layout, metrics_page::Page, rates::Rates, sample::Sample, text::plain_text, view::View,
    },
    proto::{
        open_inference::ModelStatistics,
        v1::{EpochMetrics, GetServerInfoResponse, Progress, Training, TrainingState},
    },
};

const PAGE: &str = "\
visage_predict_queue_depth 3
visage_predict_batch_size_sum 40
visage_predict_batch_size_count 10
visage_rpc_requests_total{method=\"visage.v1.PredictionService/Predict\",code=\"ok\"} 30
visage_rpc_requests_total{method=\"visage.v1.PredictionService/Predict\",code=\"unavailable\"} 4
visage_predict_images_total{outcome=\"ok\"} 30
visage_rpc_duration_seconds_bucket{method=\"visage.v1.PredictionService/Predict\",le=\"0.01\"} 15
visage_rpc_duration_seconds_bucket{method=\"visage.v1.PredictionService/Predict\",le=\"0.02\"} 30
visage_rpc_duration_seconds_bucket{method=\"visage.v1.PredictionService/Predict\",le=\"+Inf\"} 30
";

fn training(id: &str, state: TrainingState) -> Training {
    Training {
        name: format!("trainings/{id}"),
        state: state.into(),
        ..Default::default()
    }
}

fn running() -> Training {
    Training {
        progress: Some(Progress {
            epoch: 4,
            max_epochs: 10,
            step: 12,
            steps: 30,
            phase: "train".to_owned(),
            fraction: 0.34,
            eta: Some(prost_types::Duration {
                seconds: 130,
                nanos: 0,
            }),
            images_per_second: 191.25,
            train_loss: Some(96.125),
        }),
        last: Some(EpochMetrics {
            epoch: 3,
            max_epochs: 10,
            train_loss: 120.5,
            val_loss: 184.574_28,
            ..Default::default()
        }),
        ..training("faces-2", TrainingState::Running)
    }
}

fn sample(trainings: Vec<Training>) -> Sample {
    Sample {
        taken: Instant::now(),
        info: GetServerInfoResponse {
            version: "0.1.0".to_owned(),
            device: "cpu".to_owned(),
            live_model: "models/age/versions/3".to_owned(),
            start_time: Some((SystemTime::now() - Duration::from_secs(11_100)).into()),
            ..Default::default()
        },
        trainings,
        versions: vec![ModelStatistics {
            name: "age".to_owned(),
            version: "3".to_owned(),
            inference_count: 30,
            ..Default::default()
        }],
        page: Ok(Page::of(PAGE)),
    }
}

/// An idle sample two seconds before another one.
fn before(now: &Sample) -> Sample {
    let mut earlier = now.clone();
    earlier.taken = now.taken.checked_sub(Duration::from_secs(2)).unwrap();
    earlier.versions[0].inference_count = 10;
    earlier.page = Ok(Page::default());
    earlier
}

fn frame(now: &Sample, earlier: Option<&Sample>, lost: Option<&str>, color: bool) -> Buffer {
    let view = View {
        server: "http://127.0.0.1:50051",
        now,
        earlier,
        rates: &Rates::between(earlier, now),
        lost,
        color,
        is_live: true,
    };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let draw = |frame: &mut Frame<'_>| layout::draw(&view, frame.area(), frame.buffer_mut());
    terminal.draw(draw).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    plain_text(buffer).lines().map(str::to_owned).collect()
}

/// The words of the first line with this start.
fn words<'a>(lines: &'a [String], start: &str) -> Vec<&'a str> {
    let line = lines.iter().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no line starts with {start:?} in {lines:#?}"));
    line.split_whitespace().collect()
}

#[test]
fn everything_fits_on_a_terminal_of_80_by_24() {
    let queued = Training {
        queue_position: 1,
        ..training("faces-3", TrainingState::Queued)
    };
    let now = sample(vec![running(), queued]);
    let earlier = before(&now);
    let lines = lines(&frame(&now, Some(&earlier), None, false));
    assert_eq!(lines.len(), 24);
    assert_eq!(
        lines[0],
        "visage 0.1.0  127.0.0.1:50051  cpu  up 3h05m  models/age/versions/3"
    );
    assert_eq!(
        words(&lines, "TRAINING"),
        [
            "TRAINING", "STATE", "EPOCH", "DONE", "LOSS", "VAL", "LOSS", "IMG/S", "ETA"
        ]
    );
    assert_eq!(
        words(&lines, "faces-2"),
        [
            "faces-2", "RUNNING", "4/10", "==------", "34%", "96.12", "184.6", "191.2", "2m10s"
        ]
    );
    assert_eq!(words(&lines, "faces-3"), ["faces-3", "QUEUED"]);
    // 30 calls and 4 failures in two seconds.
    assert_eq!(
        words(&lines, "SERVING"),
        [
            "SERVING", "15.00", "calls/s", "2.00", "failed/s", "15.00", "images/s", "queue", "3",
            "batch", "4.00"
        ]
    );
    // Half of the calls took up to 10 ms, the others up to 20.
    assert_eq!(
        words(&lines, "call"),
        ["call", "10.0", "ms", "18.0", "ms", "19.8", "ms"]
    );
    assert_eq!(words(&lines, "decode"), ["decode", "-", "-", "-"]);
    assert_eq!(
        words(&lines, "models/age/versions/3"),
        [
            "models/age/versions/3",
            "live",
            "10.00",
            "images/s",
            "30",
            "images",
            "in",
            "total"
        ]
    );
    assert_eq!(lines[23], "q quits");
}

#[test]
fn trainings_that_do_not_fit_are_counted() {
    let many = (0..40).map(|number| training(&format!("t{number}"), TrainingState::Succeeded));
    let now = sample(many.collect());
    let lines = lines(&frame(&now, None, None, false));
    let listed = lines.iter().filter(|line| line.starts_with('t')).count();
    let more = format!("and {} more", 40 - (listed - 1));
    // One line that starts with t is the header of the times.
    assert!(lines.contains(&more), "{more}: {lines:#?}");
    assert!(listed > 5, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("SERVING")));
}

#[test]
fn a_server_without_trainings_or_metrics_shows_the_next_step() {
    let mut now = sample(Vec::new());
    now.page = Err("gpu-1:50052: no response".to_owned());
    now.info.live_model = String::new();
    let lines = lines(&frame(&now, None, Some("connection refused"), false));
    let text = lines.join("\n");
    assert!(text.contains("no live version"), "{text}");
    assert!(
        text.contains("start one with `visage train DIRECTORY`"),
        "{text}"
    );
    assert!(
        text.contains("no metrics page (gpu-1:50052: no response)"),
        "{text}"
    );
    assert_eq!(lines[23], "no response (connection refused); retrying");
}

#[test]
fn colours_are_used_only_if_allowed() {
    let now = sample(vec![running(), training("bad", TrainingState::Failed)]);
    let has_color = |color| {
        let buffer = frame(&now, None, None, color);
        let colored = |cell: &Cell| cell.fg != Color::Reset;
        buffer.content().iter().any(colored)
    };
    assert!(has_color(true));
    assert!(!has_color(false));
}

#[test]
fn any_terminal_size_is_drawn() {
    let now = sample(vec![running()]);
    let rates = Rates::default();
    for (width, height) in [(1, 1), (20, 5), (300, 100)] {
        let view = View {
            server: "http://127.0.0.1:50051",
            now: &now,
            earlier: None,
            rates: &rates,
            lost: None,
            color: true,
            is_live: true,
        };
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        layout::draw(&view, area, &mut buffer);
        assert_eq!(
            buffer.content().len(),
            usize::from(width) * usize::from(height)
        );
    }
}

#[test]
fn control_characters_of_a_server_are_not_drawn() {
    let mut now = sample(vec![training("a\u{1b}[2Jb", TrainingState::Queued)]);
    now.versions[0].name = "x\u{1b}y".to_owned();
    let text = plain_text(&frame(&now, None, None, false));
    assert!(!text.contains('\u{1b}'), "{text}");
}
