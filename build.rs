//! Compiles the protos without protoc, and lets the binary find libtorch where it was linked.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script reads cargo's environment and writes to its folder; fs_err is not among its dependencies"
)]

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    compile_protos()?;
    link_libtorch();
    Ok(())
}

/// Generates the messages, clients and servers, and keeps the descriptor sets for reflection and for JSON output.
fn compile_protos() -> Result<(), Box<dyn Error>> {
    let api = [
        "visage/v1/training.proto",
        "visage/v1/model.proto",
        "visage/v1/dataset.proto",
        "visage/v1/prediction.proto",
        "visage/v1/system.proto",
        "inference/grpc_predict_v2.proto",
    ];
    let internal = [
        "visage/worker/v1/worker.proto",
        "visage/tensorboard/v1/event.proto",
    ];
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let api_descriptors = protox::compile(api, ["proto"])?;
    fs::write(out_dir.join("api.bin"), api_descriptors.encode_to_vec())?;
    let all = protox::compile(api.iter().chain(&internal), ["proto"])?;
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    // Ordered, so that the same message always has the same bytes.
    config.btree_map(["."]);
    config.bytes([
        "visage.v1.PredictRequest.images",
        "visage.v1.Prediction.annotated_png",
        "visage.v1.EvaluationReport.predicted_plot_png",
        "visage.v1.EvaluationReport.residual_plot_png",
        "visage.v1.DownloadCheckpointResponse.data",
        "visage.v1.DownloadModelFileResponse.data",
        "inference.ModelInferRequest.raw_input_contents",
        "inference.ModelInferResponse.raw_output_contents",
        "inference.InferTensorContents.bytes_contents",
    ]);
    // An evaluation is part of many messages, and most of them have none.
    config.boxed("visage.v1.Evaluation.worst_group");
    tonic_prost_build::configure().compile_fds_with_config(all, config)?;
    Ok(())
}

/// Adds the folder of libtorch to the binary's search path, resolved, so that libtorch finds its own neighbours.
fn link_libtorch() {
    let Some(libtorch) = env::var_os("LIBTORCH") else {
        return;
    };
    let lib = PathBuf::from(libtorch).join("lib");
    for name in ["libtorch_cpu.so", "libtorch_cpu.dylib"] {
        let Ok(real) = fs::canonicalize(lib.join(name)) else {
            continue;
        };
        if let Some(folder) = real.parent() {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
        }
    }
}
