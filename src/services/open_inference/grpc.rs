//! `inference.GRPCInferenceService`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, future::ready, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    proto::open_inference::{
        self as oi, InferParameter, InferTensorContents,
        grpc_inference_service_server::GrpcInferenceService, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor,
    },
    services::{
        caller::Caller,
        compression::{compressed_if_large, uncompressed},
        status,
        task::spawn_abort_on_drop,
    },
};

use super::{
    ModelRef, OpenInference, check_load, describe,
    tensors::{self, BYTES, Call, Data, FP32, Inferred, OutputTensor, Tensor},
    unload_unsupported,
};

/// Concurrent requests of one stream; the next one is read after the response to the first.
const IN_FLIGHT: usize = 16;

/// Metadata that requests that an error ends the stream.
const ERRORS_END_STREAM: &str = "triton_grpc_error";

#[tonic::async_trait]
impl GrpcInferenceService for OpenInference {
    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<oi::ModelStreamInferResponse, Status>> + Send>>;

    async fn server_live(
        &self,
        _request: Request<oi::ServerLiveRequest>,
    ) -> Result<Response<oi::ServerLiveResponse>, Status> {
        Ok(Response::new(oi::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<oi::ServerReadyRequest>,
    ) -> Result<Response<oi::ServerReadyResponse>, Status> {
        let ready = self.is_server_ready();
        Ok(Response::new(oi::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<oi::ModelReadyRequest>,
    ) -> Result<Response<oi::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let ready = self
            .is_ready(model_ref(&request.name, &request.version))
            .await?;
        Ok(Response::new(oi::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<oi::ServerMetadataRequest>,
    ) -> Result<Response<oi::ServerMetadataResponse>, Status> {
        Ok(Response::new(describe::server()))
    }

    async fn model_metadata(
        &self,
        request: Request<oi::ModelMetadataRequest>,
    ) -> Result<Response<oi::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let metadata = self.metadata(model_ref(&request.name, &request.version));
        Ok(Response::new(metadata.await?))
    }

    async fn model_infer(
        &self,
        request: Request<oi::ModelInferRequest>,
    ) -> Result<Response<oi::ModelInferResponse>, Status> {
        let caller = Caller::of(&request)?;
        let response = self.infer_message(request.into_inner(), caller).await?;
        status::check_response(&response)?;
        Ok(compressed_if_large(response))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<oi::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let caller = Caller::of(&request)?;
        let errors_end = request.metadata().get(ERRORS_END_STREAM);
        let errors_end = errors_end.is_some_and(|value| value == "true");
        let api = self.clone();
        let respond = move |request: Result<oi::ModelInferRequest, Status>| {
            let (api, caller) = (api.clone(), caller.clone());
            spawn_abort_on_drop(
                async move { api.stream_response(request?, caller, errors_end).await },
            )
        };
        // Requests that were read still get a response when the server shuts down.
        let responses = request
            .into_inner()
            .take_until(self.shutdown.clone().cancelled_owned())
            .map(respond)
            .buffered(IN_FLIGHT);
        let shutdown = self.shutdown.clone();
        let last = stream::once(async move { shutdown.is_cancelled() })
            .filter(|is_shutdown| ready(*is_shutdown))
            .map(|_| Err(status::stream_ends()));
        Ok(uncompressed(Box::pin(responses.chain(last))))
    }

    async fn model_config(
        &self,
        request: Request<oi::ModelConfigRequest>,
    ) -> Result<Response<oi::ModelConfigResponse>, Status> {
        let request = request.into_inner();
        let config = self
            .config(model_ref(&request.name, &request.version))
            .await?;
        Ok(Response::new(oi::ModelConfigResponse {
            config: Some(config),
        }))
    }

    async fn model_statistics(
        &self,
        request: Request<oi::ModelStatisticsRequest>,
    ) -> Result<Response<oi::ModelStatisticsResponse>, Status> {
        let request = request.into_inner();
        let statistics = self.statistics(model_ref(&request.name, &request.version));
        Ok(Response::new(statistics.await?))
    }

    async fn repository_index(
        &self,
        _request: Request<oi::RepositoryIndexRequest>,
    ) -> Result<Response<oi::RepositoryIndexResponse>, Status> {
        Ok(Response::new(self.index().await?))
    }

    async fn repository_model_load(
        &self,
        request: Request<oi::RepositoryModelLoadRequest>,
    ) -> Result<Response<oi::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        check_load(request.parameters.len())?;
        self.load(&request.model_name).await?;
        Ok(Response::new(oi::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        _request: Request<oi::RepositoryModelUnloadRequest>,
    ) -> Result<Response<oi::RepositoryModelUnloadResponse>, Status> {
        Err(unload_unsupported())
    }
}

impl OpenInference {
    async fn infer_message(
        &self,
        request: oi::ModelInferRequest,
        caller: Caller,
    ) -> Result<oi::ModelInferResponse, Status> {
        let inferred = self.infer(call(request)?, caller).await?;
        Ok(response(inferred))
    }

    async fn stream_response(
        &self,
        request: oi::ModelInferRequest,
        caller: Caller,
        errors_end: bool,
    ) -> Result<oi::ModelStreamInferResponse, Status> {
        let id = request.id.clone();
        match self.infer_message(request, caller).await {
            Ok(response) => Ok(oi::ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            }),
            Err(status) if errors_end => Err(status),
            Err(status) => Ok(oi::ModelStreamInferResponse {
                error_message: status.message().to_owned(),
                infer_response: Some(oi::ModelInferResponse {
                    id,
                    ..Default::default()
                }),
            }),
        }
    }
}

fn model_ref<'a>(model: &'a str, version: &'a str) -> ModelRef<'a> {
    ModelRef {
        model,
        version,
        field: "version",
    }
}

pub(super) fn call(request: oi::ModelInferRequest) -> Result<Call, Status> {
    let count = request.inputs.len();
    let mut raw = request.raw_input_contents.into_iter().map(Some);
    if raw.len() != 0 && raw.len() != count {
        return Err(status::invalid(
            "raw_input_contents",
            format_args!(
                "must have one element for each of the {count} inputs or be empty, got {}",
                raw.len()
            ),
        ));
    }
    let mut call = Call {
        model: request.model_name,
        version: request.model_version,
        id: request.id,
        ..Default::default()
    };
    let parameters = request.parameters.iter();
    tensors::read_parameters(
        &mut call,
        parameters.map(|(name, value)| (name.as_str(), number(value))),
    )?;
    for (index, input) in request.inputs.into_iter().enumerate() {
        let field = format!("inputs[{index}]");
        let names = input.parameters.keys().map(String::as_str);
        tensors::check_tensor_parameters(&field, names)?;
        let tensor = tensor(&field, input, raw.next().flatten())?;
        call.inputs.push(tensor);
    }
    for (index, output) in request.outputs.into_iter().enumerate() {
        let names = output.parameters.keys().map(String::as_str);
        tensors::check_tensor_parameters(&format!("outputs[{index}]"), names)?;
        call.outputs.push(output.name);
    }
    Ok(call)
}

fn tensor(
    field: &str,
    input: InferInputTensor,
    raw: Option<bytes::Bytes>,
) -> Result<Tensor, Status> {
    let contents = input
        .contents
        .filter(|contents| *contents != InferTensorContents::default());
    let data = match (raw, contents) {
        (Some(_), Some(_)) => {
            return Err(status::invalid(
                &format!("{field}.contents"),
                "must be empty if the elements are in raw_input_contents",
            ));
        }
        (Some(raw), None) => Data::Raw(raw),
        (None, Some(contents)) => match input.datatype.as_str() {
            BYTES if !contents.bytes_contents.is_empty() => Data::Elements(contents.bytes_contents),
            FP32 if !contents.fp32_contents.is_empty() => Data::Numbers(contents.fp32_contents),
            _ => Data::OtherType,
        },
        (None, None) => Data::Missing,
    };
    Ok(Tensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        data,
    })
}

fn number(parameter: &InferParameter) -> Option<f64> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(value) => Some(*value as f64),
        ParameterChoice::Uint64Param(value) => Some(*value as f64),
        ParameterChoice::DoubleParam(value) => Some(*value),
        ParameterChoice::BoolParam(_) | ParameterChoice::StringParam(_) => None,
    }
}

/// Only raw contents, because clients read no others.
fn response(inferred: Inferred) -> oi::ModelInferResponse {
    let raw = |output: &OutputTensor| {
        let bytes = output.values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect::<Vec<u8>>().into()
    };
    oi::ModelInferResponse {
        model_name: inferred.model,
        model_version: inferred.version,
        id: inferred.id,
        parameters: Default::default(),
        raw_output_contents: inferred.outputs.iter().map(raw).collect(),
        outputs: inferred.outputs.into_iter().map(output).collect(),
    }
}

fn output(tensor: OutputTensor) -> InferOutputTensor {
    let confidence = tensor.confidence.map(|share| {
        let value = InferParameter {
            parameter_choice: Some(ParameterChoice::DoubleParam(share)),
        };
        ("confidence".to_owned(), value)
    });
    InferOutputTensor {
        name: tensor.name.to_owned(),
        datatype: FP32.to_owned(),
        shape: tensor.shape.map(|side| side as i64).to_vec(),
        parameters: confidence.into_iter().collect(),
        contents: None,
    }
}
