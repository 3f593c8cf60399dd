//! Metadata, configuration and statistics of versions as messages of the protocol.

use std::time::{Duration, UNIX_EPOCH};

use tonic::Status;

use crate::{
    imaging::InputSpec,
    inference::{ServedModel, Total, VersionStatistics},
    names::{VersionName, VersionRef},
    proto::open_inference::{
        self as oi, model_config::SchedulingChoice, model_metadata_response::TensorMetadata,
        model_version_policy::PolicyChoice, repository_index_response::ModelIndex,
    },
};

use super::{
    ModelRef, OpenInference, default_level,
    tensors::{BYTES, FP32, IMAGE, INPUT, Output},
};

/// The platform and backend by the names that Triton's clients expect.
const PLATFORM: &str = "pytorch_libtorch";
const BACKEND: &str = "pytorch";

/// Supported extensions by Triton.
const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// Maximum number of versions in a model's metadata.
const MAX_VERSIONS: usize = 1_000;

/// Any number of images.
const BATCH: i64 = -1;

pub(super) fn server() -> oi::ServerMetadataResponse {
    oi::ServerMetadataResponse {
        name: "visage".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

impl OpenInference {
    pub(super) async fn metadata(
        &self,
        wanted: ModelRef<'_>,
    ) -> Result<oi::ModelMetadataResponse, Status> {
        let model = self.resolve(wanted).await?;
        let versions = self.versions(Some(wanted.model)).await?;
        let newest = versions.len().saturating_sub(MAX_VERSIONS);
        let numbers = versions[newest..].iter();
        let tensor = |name: &str, datatype: &str, shape: Vec<i64>| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape,
        };
        let side = i64::from(model.input.size);
        let with_batch =
            |output: Output| tensor(output.name(), FP32, vec![BATCH, output.width() as i64]);
        let mut properties = input_properties(&model.input);
        if let Some(level) = default_level(&model) {
            properties.insert("interval.confidence".to_owned(), level.to_string());
        }
        if let Some(precision_report) = self.predictions.predictor.precision_report(&model) {
            let difference = format!("{:.4}", precision_report.difference);
            properties.insert(
                "precision".to_owned(),
                precision_report.precision.name().to_owned(),
            );
            properties.insert("precision.difference".to_owned(), difference);
        }
        Ok(oi::ModelMetadataResponse {
            name: wanted.model.to_owned(),
            versions: numbers.map(|(_, number)| number.to_string()).collect(),
            platform: PLATFORM.to_owned(),
            inputs: vec![
                tensor(IMAGE, BYTES, vec![BATCH, 1]),
                tensor(INPUT, FP32, vec![BATCH, 3, side, side]),
            ],
            outputs: outputs_of(&model).map(with_batch).collect(),
            properties,
        })
    }

    pub(super) async fn config(&self, wanted: ModelRef<'_>) -> Result<oi::ModelConfig, Status> {
        let model = self.resolve(wanted).await?;
        let side = i64::from(model.input.size);
        let input = |name: &str, data_type: oi::DataType, format, dims| oi::ModelInput {
            name: name.to_owned(),
            data_type: data_type.into(),
            format: oi::model_input::Format::into(format),
            dims,
            // A request has one of the two inputs, and clients fill in those that are not optional.
            optional: true,
        };
        let output = |output: Output| oi::ModelOutput {
            name: output.name().to_owned(),
            data_type: oi::DataType::TypeFp32.into(),
            dims: vec![output.width() as i64],
        };
        use oi::model_input::Format;
        Ok(oi::ModelConfig {
            name: wanted.model.to_owned(),
            platform: PLATFORM.to_owned(),
            backend: BACKEND.to_owned(),
            version_policy: Some(oi::ModelVersionPolicy {
                policy_choice: Some(PolicyChoice::All(oi::model_version_policy::All {})),
            }),
            max_batch_size: i32::try_from(self.predictions.max_images).unwrap_or(i32::MAX),
            input: vec![
                input(IMAGE, oi::DataType::TypeString, Format::None, vec![1]),
                input(
                    INPUT,
                    oi::DataType::TypeFp32,
                    Format::Nchw,
                    vec![3, side, side],
                ),
            ],
            output: outputs_of(&model).map(output).collect(),
            scheduling_choice: Some(SchedulingChoice::DynamicBatching(
                oi::ModelDynamicBatching {
                    preferred_batch_size: i32::try_from(self.max_batch).into_iter().collect(),
                    max_queue_delay_microseconds: 0,
                },
            )),
            model_transaction_policy: Some(oi::ModelTransactionPolicy { decoupled: false }),
        })
    }

    /// Without a model, the statistics of all versions that were used.
    pub(super) async fn statistics(
        &self,
        wanted: ModelRef<'_>,
    ) -> Result<oi::ModelStatisticsResponse, Status> {
        let statistics = self.predictions.predictor.statistics();
        let names = match wanted.model {
            "" => statistics.versions(),
            _ => vec![self.resolve(wanted).await?.name.clone()],
        };
        let mut model_stats = Vec::with_capacity(names.len());
        for name in names {
            let counts = statistics.of(&name);
            // Skips checkpoints, which are loaded to be checked before they become versions.
            if let Ok(VersionName {
                model,
                version: VersionRef::Number(number),
            }) = VersionName::parse(&name)
            {
                model_stats.push(message(model, number, &counts));
            }
        }
        Ok(oi::ModelStatisticsResponse { model_stats })
    }

    pub(super) async fn index(&self) -> Result<oi::RepositoryIndexResponse, Status> {
        let broken = self.broken().await;
        let entry = |(name, number): (String, u64)| {
            let version = format!("models/{name}/versions/{number}");
            let broken = broken.as_ref().filter(|(broken, _)| *broken == version);
            let (state, reason) = match broken {
                None => ("READY", String::new()),
                Some((_, cause)) => ("UNAVAILABLE", cause.clone()),
            };
            ModelIndex {
                name,
                version: number.to_string(),
                state: state.to_owned(),
                reason,
            }
        };
        let versions = self.versions(None).await?;
        Ok(oi::RepositoryIndexResponse {
            models: versions.into_iter().map(entry).collect(),
        })
    }
}

/// The outputs of a version for requests that do not list any.
fn outputs_of(model: &ServedModel) -> impl Iterator<Item = Output> + use<> {
    let has_interval = default_level(model).is_some();
    let given = move |output: &Output| *output != Output::Interval || has_interval;
    Output::ALL.into_iter().filter(given)
}

/// The properties that clients need to preprocess images.
fn input_properties(input: &InputSpec) -> std::collections::BTreeMap<String, String> {
    let listed = |values: [f32; 3]| values.map(|value| value.to_string()).join(",");
    [("input.mean", input.mean), ("input.std", input.std)]
        .map(|(name, values)| (name.to_owned(), listed(values)))
        .into()
}

fn message(model: String, number: u64, counts: &VersionStatistics) -> oi::ModelStatistics {
    let last_request = counts
        .last_request
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let passes = counts.batches.iter();
    oi::ModelStatistics {
        name: model,
        version: number.to_string(),
        last_inference: last_request.map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        }),
        inference_count: counts.images,
        execution_count: counts.batches.values().map(|total| total.count).sum(),
        inference_stats: Some(oi::InferStatistics {
            success: total(counts.succeeded),
            fail: total(counts.failed),
            queue: total(counts.queue),
            compute_input: total(counts.decode),
            compute_infer: total(counts.inference),
            // The conversion to ages is part of the forward pass.
            compute_output: total(Total {
                count: counts.succeeded.count,
                time: Duration::ZERO,
            }),
            cache_hit: looked_up(counts.cache.0),
            cache_miss: looked_up(counts.cache.1),
        }),
        batch_stats: passes
            .map(|(images, passes)| oi::InferBatchStatistics {
                batch_size: *images as u64,
                compute_infer: total(*passes),
                ..Default::default()
            })
            .collect(),
    }
}

/// A number of cache lookups, whose time is not measured.
fn looked_up(count: u64) -> Option<oi::StatisticDuration> {
    total(Total {
        count,
        time: Duration::ZERO,
    })
}

fn total(total: Total) -> Option<oi::StatisticDuration> {
    Some(oi::StatisticDuration {
        count: total.count,
        ns: u64::try_from(total.time.as_nanos()).unwrap_or(u64::MAX),
    })
}
