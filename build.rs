//! Compiles the protos without protoc, embeds the dashboard, and sets the search path of libtorch.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script reads cargo's environment and writes to OUT_DIR; fs_err is not a build dependency"
)]

use std::{
    env,
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    check_jpeg_simd()?;
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    compile_protos()?;
    embed_dashboard()?;
    link_libtorch();
    compile_process_group();
    Ok(())
}

/// Compiles the C interface to libtorch's process group, if libtorch has its headers; without it a
/// training runs in one process.
fn compile_process_group() {
    const RANKS: &str = "src/training/ranks";
    println!("cargo:rustc-check-cfg=cfg(has_c10d)");
    println!("cargo:rerun-if-changed={RANKS}/c10d.cpp");
    println!("cargo:rerun-if-changed={RANKS}/gloo_headers");
    let Some(libtorch) = env::var_os("LIBTORCH") else {
        return;
    };
    let include = PathBuf::from(libtorch).join("include");
    let header = include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp");
    if !header.is_file() {
        return;
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("USE_C10D_GLOO", None)
        .include(format!("{RANKS}/gloo_headers"))
        // As system headers, whose warnings are not shown.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .file(format!("{RANKS}/c10d.cpp"))
        .compile("visage_c10d");
    println!("cargo:rustc-cfg=has_c10d");
}

/// Fails the build if the JPEG decoder was compiled without SIMD: it is several times slower, and
/// mozjpeg-sys only warns.
fn check_jpeg_simd() -> Result<(), Box<dyn Error>> {
    let has_simd_code = matches!(
        env::var("CARGO_CFG_TARGET_ARCH")?.as_str(),
        "x86" | "x86_64" | "arm" | "aarch64"
    );
    // Set by the build script of mozjpeg-sys: the directories of its configuration and sources.
    let directories = env::var_os("DEP_JPEG_INCLUDE").unwrap_or_default();
    let is_simd = env::split_paths(&directories).any(|directory| {
        fs::read_to_string(directory.join("jconfig.h"))
            .is_ok_and(|configuration| configuration.contains("#define WITH_SIMD 1"))
    });
    if has_simd_code && !is_simd {
        return Err(
            "libjpeg-turbo was compiled without SIMD, because nasm was missing; install nasm (`sudo apt install nasm`, \
             `sudo dnf install nasm`), run `cargo clean --package mozjpeg-sys` and build again"
                .into(),
        );
    }
    Ok(())
}

/// Generates the messages, clients and servers, and the descriptor set for reflection and JSON.
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
    // Ordered maps: equal messages have equal bytes.
    config.btree_map(["."]);
    config.bytes([
        "visage.v1.PredictRequest.images",
        "visage.v1.BatchImage.image",
        "visage.v1.Prediction.annotated_png",
        "visage.v1.Prediction.explanation_png",
        "visage.v1.FacePrediction.explanation_png",
        "visage.v1.EvaluationReport.predicted_plot_png",
        "visage.v1.EvaluationReport.residual_plot_png",
        "visage.v1.DownloadCheckpointResponse.data",
        "visage.v1.DownloadModelFileResponse.data",
        "inference.ModelInferRequest.raw_input_contents",
        "inference.ModelInferResponse.raw_output_contents",
        "inference.InferTensorContents.bytes_contents",
    ]);
    // Boxed because most evaluations lack it, and many messages contain an evaluation.
    config.boxed("visage.v1.Evaluation.worst_group");
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::LimitedCodec")
        .compile_fds_with_config(all, config)?;
    Ok(())
}

/// Writes the list of the dashboard's files, plain and compressed, that `src/dashboard/mod.rs`
/// includes. The list is empty if the dashboard was not built.
fn embed_dashboard() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("src/dashboard/web/dist");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    // Watching a missing directory would run the build script in every build.
    let watched = if directory.is_dir() {
        "src/dashboard/web/dist"
    } else {
        "src/dashboard/web"
    };
    if Path::new(watched).is_dir() {
        println!("cargo:rerun-if-changed={watched}");
    }
    let mut files = Vec::new();
    if directory.is_dir() {
        files_under(&directory, &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for (number, file) in files.iter().enumerate() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(file)?)?;
        let compressed = out_dir.join(format!("dashboard-{number}.gz"));
        fs::write(&compressed, encoder.finish()?)?;
        let name = file.strip_prefix(&directory)?;
        list.push_str(&format!(
            "Asset {{ path: {name:?}, plain: include_bytes!({file:?}), gzip: include_bytes!({compressed:?}) }},\n"
        ));
    }
    list.push(']');
    fs::write(out_dir.join("dashboard.in"), list)?;
    Ok(())
}

fn files_under(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files_under(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Adds the resolved directory of libtorch to the binary's search path, so that libtorch finds the
/// libraries beside it.
fn link_libtorch() {
    let Some(libtorch) = env::var_os("LIBTORCH") else {
        return;
    };
    let lib = PathBuf::from(libtorch).join("lib");
    for name in ["libtorch_cpu.so", "libtorch_cpu.dylib"] {
        let Ok(real) = fs::canonicalize(lib.join(name)) else {
            continue;
        };
        if let Some(directory) = real.parent() {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
        }
    }
}
