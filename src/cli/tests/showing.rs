use prost_types::Timestamp;

use crate::{
    cli::tests::{fake::Fake, story::ended, visage},
    proto::v1::{DatasetSpec, OptimizerSpec, TrainingSpec, TrainingState},
};

#[tokio::test]
async fn a_training_is_shown_with_dataset_settings_and_duration() {
    let mut state = ended(TrainingState::Succeeded);
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let training = &mut state.training;
    (training.start_time, training.end_time) = (at(1000), at(1130));
    training.checkpoint_bytes = 3 << 20;
    training.owner = "ada".to_owned();
    let spec = TrainingSpec {
        dataset: Some(DatasetSpec {
            path: "/faces".to_owned(),
            ..DatasetSpec::default()
        }),
        optimizer: Some(OptimizerSpec {
            beta1: Some(0.5),
            ..OptimizerSpec::default()
        }),
        ..TrainingSpec::default()
    };
    training.resolved_spec = Some(TrainingSpec {
        max_epochs: Some(10),
        // Neither requested nor one of the main settings.
        ema_decay: Some(0.0),
        ..spec.clone()
    });
    training.spec = Some(spec);
    let server = Fake::start(state);
    let run = visage(&server.url(), &["training", "get", "t"]).await;
    assert_eq!(
        run.lines(),
        [
            "trainings/t succeeded: all epochs are done (2m10s)",
            "Model version: models/age/versions/3",
            "Owner: ada",
            "Data: /faces",
            "Settings:",
            "  max_epochs       10",
            "  optimizer.beta1  0.5",
        ]
    );
    let run = visage(&server.url(), &["trainings", "rm", "t"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (0, "Deleted trainings/t; 3.0 MiB freed.\n")
    );
    let run = visage(&server.url(), &["trainings", "compare", "t", "t"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.lines()[1].starts_with("state "), "{}", run.stdout);
}
