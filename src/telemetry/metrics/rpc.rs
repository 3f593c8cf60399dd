use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::metrics::SharedString;

use crate::telemetry::metrics::{
    families::{
        CERTIFICATE_EXPIRY, CONNECTIONS, CONNECTIONS_CLOSED, HTTP_DURATION, HTTP_REQUESTS,
        RPC_DURATION, RPC_IN_FLIGHT, RPC_REQUESTS,
    },
    labels::{ConnectionRefusal, Port, RpcCode},
    series::{counter, gauge, histogram},
};

/// The codes whose series exist before the first call of a method or route: success and server
/// errors, so that an alert sees the first error.
const KNOWN_CODES: [RpcCode; 4] = [
    RpcCode::Ok,
    RpcCode::Internal,
    RpcCode::Unknown,
    RpcCode::DataLoss,
];

/// Creates the series of a method before its first call.
pub(crate) fn rpc_known(method: &Arc<str>) {
    for code in KNOWN_CODES {
        counter(&RPC_REQUESTS, &[shared(method), code.as_str().into()]).absolute(0);
    }
    drop(histogram(&RPC_DURATION, &[shared(method)]));
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).increment(0.0);
}

/// Each call is followed by one [`rpc_finished`].
pub(crate) fn rpc_started(method: &Arc<str>) {
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).increment(1.0);
}

pub(crate) fn rpc_finished(method: &Arc<str>, code: RpcCode, elapsed: Duration) {
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).decrement(1.0);
    counter(&RPC_REQUESTS, &[shared(method), code.as_str().into()]).increment(1);
    histogram(&RPC_DURATION, &[shared(method)]).record(elapsed);
}

/// Creates the series of an HTTP route before its first request.
pub(crate) fn http_known(route: &'static str) {
    for code in KNOWN_CODES {
        counter(&HTTP_REQUESTS, &[route.into(), code.as_str().into()]).absolute(0);
    }
    drop(histogram(&HTTP_DURATION, &[route.into()]));
}

pub(crate) fn http_finished(route: &'static str, code: RpcCode, elapsed: Duration) {
    counter(&HTTP_REQUESTS, &[route.into(), code.as_str().into()]).increment(1);
    histogram(&HTTP_DURATION, &[route.into()]).record(elapsed);
}

/// Each opened connection is followed by one [`connection_closed`].
pub(crate) fn connection_opened(port: Port) {
    gauge(&CONNECTIONS, &[port.as_str().into()]).increment(1.0);
}

pub(crate) fn connection_closed(port: Port) {
    gauge(&CONNECTIONS, &[port.as_str().into()]).decrement(1.0);
}

/// The server closes a connection, or does not serve it.
pub(crate) fn connection_refused(port: Port, reason: ConnectionRefusal) {
    counter(
        &CONNECTIONS_CLOSED,
        &[port.as_str().into(), reason.as_str().into()],
    )
    .increment(1);
}

/// The server uses a certificate that is valid until this time.
pub(crate) fn certificate_expiry(expires: SystemTime) {
    let since_epoch = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge(&CERTIFICATE_EXPIRY, &[]).set(since_epoch.as_secs_f64());
}

fn shared(method: &Arc<str>) -> SharedString {
    SharedString::from(Arc::clone(method))
}
