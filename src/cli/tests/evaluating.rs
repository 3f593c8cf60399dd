use crate::proto::v1::DatasetSplit;

use super::{
    fake::{Fake, State},
    visage,
};

#[tokio::test]
async fn evaluate_without_a_dataset_prints_what_is_stored() {
    let server = Fake::start(State::default());
    let run = visage(&server.url(), &["evaluate"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let lines = run.lines();
    assert_eq!(
        lines[0],
        "models/age/versions/3, made of trainings/t/checkpoints/7"
    );
    assert!(lines[1].starts_with("Test on 12 images: "), "{}", lines[1]);
    assert!(
        lines[1].contains("MAE: 4.50 (the mean training age alone, 33.2: 9.50)"),
        "{}",
        lines[1]
    );
    assert_eq!(
        lines[2..],
        [
            "  within 3 years: 25.0 %, within 5 years: 50.0 %, within 10 years: 75.0 %",
            "  80 % interval: holds 83.3 % of the true ages, 21.5 years wide on average",
            "  group                 images     MAE    RMSE    bias",
            "  age 30-39                 12    4.50    5.50   -1.25",
            "  Worst group of 10 images or more: age 30-39, MAE: 4.50",
            "Furthest off:",
            "      age predicted   error  file",
            "     33.0      45.5   +12.5  test/33_far.jpg",
        ]
    );
    let run = visage(&server.url(), &["evaluate", "--json"]).await;
    let stored = &run.objects()[0];
    assert_eq!(stored["model_version"], "models/age/versions/3");
    assert_eq!(stored["evaluation"]["interval_coverage"]["coverage"], 0.833);
    assert!(server.state.evaluated.lock().unwrap().is_empty());
    let run = visage(&server.url(), &["evaluate", "--version", "2"]).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.stderr, "error: it has no stored evaluation\n");
}

#[tokio::test]
async fn evaluate_asks_for_what_was_typed_and_writes_the_plots() {
    let server = Fake::start(State::default());
    let directory = tempfile::tempdir().unwrap();
    let plots = directory.path().join("plots");
    let dataset = directory.path().canonicalize().unwrap();
    let arguments = [
        "evaluate",
        "--version",
        "3",
        "--dataset",
        directory.path().to_str().unwrap(),
        "--split",
        "val",
        "--interval",
        "0.8",
        "--max-age",
        "90",
        "--predictions",
        "--plots",
        plots.to_str().unwrap(),
    ];
    let run = visage(&server.url(), &arguments).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    {
        let evaluated = server.state.evaluated.lock().unwrap();
        let asked = &evaluated[0];
        assert_eq!(asked.name, "models/age/versions/3");
        assert_eq!(asked.split(), DatasetSplit::Validation);
        assert_eq!(asked.interval_level, Some(0.8));
        assert!(asked.include_plots && asked.include_predictions);
        let spec = asked.dataset.clone().unwrap();
        assert_eq!(spec.path, dataset.to_str().unwrap());
        assert_eq!((spec.min_age, spec.max_age), (None, Some(90.0)));
    }
    let lines = run.lines();
    assert_eq!(
        lines[0],
        "models/age/versions/3 on /data/faces, its test images"
    );
    assert_eq!(lines[1], "  warning: two images are the same");
    assert_eq!(
        lines[2],
        "  1 images could not be read and are in no figure"
    );
    assert!(lines.contains(&"     33.0      45.5   +12.5  test/33_near.jpg"));
    assert_eq!(fs_err::read(plots.join("predicted.png")).unwrap(), b"one");
    assert_eq!(fs_err::read(plots.join("residuals.png")).unwrap(), b"two");

    let run = visage(&server.url(), &[&arguments[..], &["--json"]].concat()).await;
    let objects = run.objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["evaluation"]["mae"], 4.5);
    assert_eq!(objects[0]["split"], "DATASET_SPLIT_TEST");
    assert_eq!(objects[0]["predictions"][1]["file"], "test/33_near.jpg");
    assert_eq!(objects[0]["plots"].as_array().unwrap().len(), 2);
    assert_eq!(objects[0].get("predicted_plot_png"), None);
}

#[tokio::test]
async fn evaluate_takes_no_split_without_a_dataset() {
    use clap::Parser as _;
    let refused = super::super::Cli::try_parse_from(["visage", "evaluate", "--split", "test"]);
    let error = refused.map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--dataset"), "{error}");
}
