//! Calls Predict at a given load and reports the outcomes as one line of JSON.
//!
//! It takes a fraction of what a Python client takes of the processors, which it shares with the
//! server.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use http::uri::PathAndQuery;
use serde::Serialize;
use tokio::{
    task::{LocalSet, yield_now},
    time::{MissedTickBehavior, interval},
};
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_prost::ProstCodec;

const METHOD: &str = "/visage.v1.PredictionService/Predict";

#[derive(Debug, Parser)]
#[command(about)]
struct Options {
    /// HOST:PORT of the server.
    address: String,
    /// Number of clients; each sends its next image after the response.
    #[arg(long, required_unless_present = "rate", conflicts_with = "rate")]
    clients: Option<usize>,
    /// Calls per second, sent at fixed times regardless of responses.
    #[arg(long)]
    rate: Option<f64>,
    /// For so long calls are begun.
    #[arg(long)]
    seconds: f64,
    /// Deadline of each call, in seconds.
    #[arg(long, default_value_t = 60.0)]
    timeout: f64,
    /// Token that each call sends.
    #[arg(long)]
    token: Option<String>,
    /// Certificate (PEM) of the authority of a server with TLS.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Encoded images, sent one after another.
    #[arg(required = true)]
    images: Vec<PathBuf>,
}

/// The fields of the request; the response is not decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct PredictRequest {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    images: Vec<Bytes>,
}

/// Outcomes of the calls.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Until the last answer.
    seconds: f64,
    /// Calls by their status codes.
    outcomes: BTreeMap<String, u64>,
    /// Of the calls that were answered with OK.
    latencies_ms: Vec<f64>,
}

/// Calls to one server. Cheap to clone.
#[derive(Clone)]
struct Load {
    channel: Channel,
    images: Rc<[Bytes]>,
    timeout: Duration,
    authorization: Option<MetadataValue<Ascii>>,
    found: Rc<RefCell<Found>>,
}

impl Load {
    async fn call(self, number: usize) {
        let begun = Instant::now();
        let answer = self.answer(number).await;
        let mut found = self.found.borrow_mut();
        let code = match answer {
            Ok(()) => {
                found
                    .latencies_ms
                    .push(begun.elapsed().as_secs_f64() * 1000.0);
                tonic::Code::Ok
            }
            Err(status) => status.code(),
        };
        *found.outcomes.entry(format!("{code:?}")).or_default() += 1;
    }

    async fn answer(&self, number: usize) -> Result<(), Status> {
        let mut request = Request::new(PredictRequest {
            images: vec![self.images[number % self.images.len()].clone()],
        });
        request.set_timeout(self.timeout);
        if let Some(value) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        let mut grpc = Grpc::new(self.channel.clone());
        let gone = |error| Status::unavailable(format!("{error}"));
        grpc.ready().await.map_err(gone)?;
        let codec = ProstCodec::<PredictRequest, ()>::default();
        let method = PathAndQuery::from_static(METHOD);
        grpc.unary(request, method, codec).await.map(|_| ())
    }

    /// Clients that wait for their answers.
    async fn closed(&self, clients: usize, limit: Instant) {
        let client = |number| async move {
            let mut number = number;
            while Instant::now() < limit {
                self.clone().call(number).await;
                number += clients;
            }
        };
        futures_util::future::join_all((0..clients).map(client)).await;
    }

    /// Calls at fixed times.
    async fn opened(&self, period: Duration, limit: Instant) {
        let mut clock = interval(period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut calls = tokio::task::JoinSet::new();
        let mut number = 0;
        while Instant::now() < limit {
            clock.tick().await;
            calls.spawn_local(self.clone().call(number));
            while calls.try_join_next().is_some() {}
            number += 1;
            // After a pause of the machine many calls are due at once.
            yield_now().await;
        }
        calls.join_all().await;
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, String> {
    let value = format!("Bearer {token}").parse();
    value.map_err(|error| format!("--token must be printable ASCII: {error}"))
}

/// The time from one call to the next.
fn period_of(rate: f64) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(rate.recip()) {
        Ok(period) if !period.is_zero() => Ok(period),
        Ok(_) | Err(_) => Err(format!(
            "--rate must be above 0 and below 1e9 calls per second, got {rate}"
        )),
    }
}

async fn connected(address: &str, ca: Option<&PathBuf>) -> Result<Channel, Box<dyn Error>> {
    let scheme = if ca.is_some() { "https" } else { "http" };
    let mut endpoint = Channel::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| format!("the address must be HOST:PORT, got {address}: {error}"))?;
    if let Some(path) = ca {
        let authority = Certificate::from_pem(fs_err::read(path)?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(authority))?;
    }
    let unreachable = |error| format!("failed to connect to {address}: {error:?}");
    Ok(endpoint.connect().await.map_err(unreachable)?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let period = options.rate.map(period_of).transpose()?;
    let read = |path: &PathBuf| fs_err::read(path).map(Bytes::from);
    let images = options.images.iter().map(read);
    let load = Load {
        channel: connected(&options.address, options.ca.as_ref()).await?,
        authorization: options.token.as_deref().map(bearer).transpose()?,
        images: images.collect::<Result<_, _>>()?,
        timeout: Duration::try_from_secs_f64(options.timeout)?,
        found: Rc::default(),
    };
    let begun = Instant::now();
    let limit = begun + Duration::try_from_secs_f64(options.seconds)?;
    let calls = async {
        match (options.clients, period) {
            (Some(clients), _) => load.closed(clients, limit).await,
            (None, Some(period)) => load.opened(period, limit).await,
            (None, None) => {}
        }
    };
    LocalSet::new().run_until(calls).await;
    let mut found = load.found.take();
    found.seconds = begun.elapsed().as_secs_f64();
    serde_json::to_writer(std::io::stdout(), &found)?;
    Ok(())
}
