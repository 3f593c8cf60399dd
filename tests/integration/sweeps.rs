//! Sweeps through a short queue.

use std::{path::Path, process::Output};

use visage::proto::v1::{
    ListModelVersionsRequest, ListTrainingsRequest, ModelVersion, TrainingState,
};

use crate::support::Server;

/// Runs `visage sweep` on two batch sizes, one epoch each.
async fn sweep(server: &Server, faces: &Path, more: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_visage"));
    command
        .args(["--server", &server.grpc, "--json", "sweep", "--dataset"])
        .arg(faces)
        .args(["--grid", "batch_size=8,16", "--set", "max_epochs=1"])
        .args(["--set", "init.kind=RANDOM", "--set", "input_size=32"])
        .args(more)
        .current_dir(server.directory.path())
        .kill_on_drop(true);
    command.output().await.unwrap()
}

fn objects(output: &Output) -> Vec<serde_json::Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = std::str::from_utf8(&output.stdout).unwrap();
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn versions(server: &Server) -> Vec<ModelVersion> {
    let request = ListModelVersionsRequest::default();
    let listed = server.models().list_model_versions(request).await.unwrap();
    listed.into_inner().versions
}

#[tokio::test]
async fn a_sweep_runs_all_and_resumes_where_it_stopped() {
    let server = Server::start(&["--max-queued-trainings", "1"]);
    let faces = server.faces("faces", 40, 3);
    let runs = objects(&sweep(&server, &faces, &["--id", "sizes"]).await);
    assert_eq!(runs.len(), 2);
    let loss = |run: &serde_json::Value| run["training"]["best"]["val_loss"].as_f64().unwrap();
    assert!(loss(&runs[0]) <= loss(&runs[1]), "{runs:#?}");
    for (name, batch_size) in [("trainings/sizes-1", 8), ("trainings/sizes-2", 16)] {
        let training = server.training(name).await;
        assert_eq!(training.state(), TrainingState::Succeeded);
        assert_eq!(training.resolved_spec.unwrap().batch_size, Some(batch_size));
        assert_eq!(training.labels["sweep"], "sizes");
        let run = runs.iter().find(|run| run["training"]["name"] == name);
        assert_eq!(run.unwrap()["fields"]["batch_size"], batch_size);
    }
    // Only the best run became a version.
    let best = runs[0]["training"]["name"].as_str().unwrap();
    let created = versions(&server).await;
    assert_eq!(created.len(), 1, "{created:#?}");
    assert!(
        created[0].checkpoint.starts_with(&format!("{best}/")),
        "{created:#?}"
    );
    // No run was promoted.
    assert!(server.predict().await.is_err());

    // A missing run is trained again, the other is only read.
    let request = visage::proto::v1::DeleteTrainingRequest {
        name: "trainings/sizes-2".to_owned(),
    };
    server.trainings().delete_training(request).await.unwrap();
    let first = server.training("trainings/sizes-1").await;
    let again = objects(&sweep(&server, &faces, &["--resume", "sizes"]).await);
    assert_eq!(again.len(), 2);
    assert_eq!(server.training("trainings/sizes-1").await, first);
    let list = ListTrainingsRequest::default();
    let listed = server.trainings().list_trainings(list).await.unwrap();
    assert_eq!(listed.into_inner().trainings.len(), 2);
}
