//! The server's metrics page, fetched over HTTP and parsed.

use std::{collections::HashMap, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    cli::client::{Credentials, http},
    telemetry::metrics::families,
};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Limit of the page in bytes; the page of a server has about 60 kB.
const MAX_BYTES: u64 = 8 << 20;

/// Values by series, which are name and labels as printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Page(HashMap<String, f64>);

/// Fetches the page from `http://host:port`, `https://host:port` or `host:port`; otherwise returns
/// the reason in words.
pub(super) async fn fetch(address: &str, credentials: &Credentials) -> Result<Page, String> {
    match timeout(TIMEOUT, read(address, credentials)).await {
        Err(_) => Err("no response".to_owned()),
        Ok(response) => parse(&response?),
    }
}

/// The whole response. HTTP/1.0 has no chunks, and its connection ends with the response.
async fn read(address: &str, credentials: &Credentials) -> Result<String, String> {
    let base = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let authorization = match credentials.authorization(&base) {
        Ok(value) => value.map(|value| format!("authorization: {value}\r\n")),
        Err(error) => return Err(error.to_string()),
    };
    let mut connection = http::connect(credentials, &base).await?;
    let host = base.split_once("://").map_or("", |(_, host)| host);
    let request = format!(
        "GET /metrics HTTP/1.0\r\nhost: {host}\r\n{}\r\n",
        authorization.unwrap_or_default()
    );
    let mut response = String::new();
    let exchange = async {
        connection.write_all(request.as_bytes()).await?;
        let mut limited = connection.take(MAX_BYTES);
        limited.read_to_string(&mut response).await
    };
    match exchange.await {
        Ok(_) => Ok(response),
        // A server may end the connection without the closing message of TLS.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(response),
        Err(error) => Err(error.to_string()),
    }
}

fn parse(response: &str) -> Result<Page, String> {
    let (head, body) = response
        .split_once("\r\n\r\n")
        .ok_or("not an HTTP server")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("it returned {status:?}"));
    }
    let page = Page::of(body);
    match page.0.contains_key(families::PREDICT_QUEUE_DEPTH.name) {
        true => Ok(page),
        false => Err("its page has no metrics of Visage".to_owned()),
    }
}

impl Page {
    /// Parses the text format of Prometheus.
    pub(super) fn of(text: &str) -> Self {
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Page(lines.filter_map(series).collect())
    }

    /// A series without labels, or 0.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// The sum of the series of a name whose labels contain all of `with`, such as `method="..."`,
    /// and none of `without`.
    pub(super) fn sum(&self, name: &str, with: &[&str], without: &[&str]) -> f64 {
        let is_wanted = |series: &str| {
            let labels = series
                .strip_prefix(name)
                .filter(|rest| rest.starts_with('{'));
            labels.is_some_and(|labels| {
                with.iter().all(|label| labels.contains(label))
                    && !without.iter().any(|label| labels.contains(label))
            })
        };
        let found = self.0.iter().filter(|(series, _)| is_wanted(series));
        found.map(|(_, value)| value).sum()
    }

    /// A histogram over the series whose labels contain all of `with`.
    pub(super) fn histogram(&self, name: &str, with: &[&str]) -> Histogram {
        let prefix = format!("{name}_bucket{{");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (series, count) in &self.0 {
            let Some(labels) = series.strip_prefix(&prefix) else {
                continue;
            };
            if !with.iter().all(|label| labels.contains(label)) {
                continue;
            }
            let bound = labels
                .split_once("le=\"")
                .and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
            let Some(bound) = bound else { continue };
            match buckets.iter_mut().find(|(found, _)| *found == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, *count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Histogram(buckets)
    }
}

/// Number of values up to each bound, bounds ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// The change since an earlier histogram; all values after a restart of the server.
    pub(super) fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |bound: f64| {
            let found = earlier.0.iter().find(|(other, _)| *other == bound);
            found.map_or(0.0, |(_, count)| *count)
        };
        if earlier.count() > self.count() {
            return self.clone();
        }
        let difference = |(bound, count): &(f64, f64)| (*bound, count - before(*bound));
        Histogram(self.0.iter().map(difference).collect())
    }

    pub(super) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The quantile by linear interpolation between two bounds; `None` without values. Values above
    /// the last bound count as that bound.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0.0 {
            return None;
        }
        let rank = share * count;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, at_most) in &self.0 {
            if *at_most >= rank && *at_most > below {
                if bound.is_infinite() {
                    return Some(lower);
                }
                return Some(lower + (bound - lower) * (rank - below) / (at_most - below));
            }
            (lower, below) = (*bound, *at_most);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP visage_predict_queue_depth Images.
# TYPE visage_predict_queue_depth gauge
visage_predict_queue_depth 3
visage_rpc_requests_total{method=\"a/Predict\",code=\"ok\"} 90
visage_rpc_requests_total{method=\"a/Predict\",code=\"not_found\"} 10
visage_rpc_requests_total{method=\"b/Infer\",code=\"ok\"} 5
visage_rpc_duration_seconds_bucket{method=\"a/Predict\",le=\"0.1\"} 50
visage_rpc_duration_seconds_bucket{method=\"a/Predict\",le=\"0.2\"} 90
visage_rpc_duration_seconds_bucket{method=\"a/Predict\",le=\"+Inf\"} 100
";

    #[test]
    fn series_are_added_up_by_their_labels() {
        let page = Page::of(TEXT);
        let name = "visage_rpc_requests_total";
        assert_eq!(page.value("visage_predict_queue_depth"), 3.0);
        assert_eq!(page.sum(name, &["method=\"a/Predict\""], &[]), 100.0);
        assert_eq!(
            page.sum(name, &["method=\"a/Predict\""], &["code=\"ok\""]),
            10.0
        );
        assert_eq!(page.sum(name, &["code=\"ok\""], &[]), 95.0);
        assert_eq!(page.sum("visage_rpc_requests", &[], &[]), 0.0);
    }

    /// By hand: of 100 values 50 are up to 0.1, so the 70th is half of the way from there to 0.2.
    #[test]
    fn quantiles_lie_between_the_bounds() {
        let page = Page::of(TEXT);
        let all = page.histogram("visage_rpc_duration_seconds", &["method=\"a/Predict\""]);
        let quantile = |share| all.quantile(share).unwrap();
        assert!((quantile(0.25) - 0.05).abs() < 1e-12);
        assert!((quantile(0.7) - 0.15).abs() < 1e-12);
        assert_eq!(quantile(0.99), 0.2);
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(all.since(&all).quantile(0.5), None);
    }

    #[test]
    fn difference_of_histograms_is_what_came_between() {
        let histogram =
            |counts: [f64; 2]| Histogram(vec![(0.1, counts[0]), (f64::INFINITY, counts[1])]);
        let between = histogram([5.0, 9.0]).since(&histogram([1.0, 2.0]));
        assert_eq!(between, histogram([4.0, 7.0]));
        // The server was restarted.
        assert_eq!(
            histogram([1.0, 2.0]).since(&histogram([5.0, 9.0])),
            histogram([1.0, 2.0])
        );
    }

    #[test]
    fn pages_of_other_programs_are_refused() {
        let error = |response: &str| parse(response).unwrap_err();
        assert_eq!(error("hello"), "not an HTTP server");
        assert_eq!(
            error("HTTP/1.1 404 Not Found\r\n\r\nno"),
            "it returned \"HTTP/1.1 404 Not Found\""
        );
        assert_eq!(
            error("HTTP/1.1 200 OK\r\n\r\nup 1\n"),
            "its page has no metrics of Visage"
        );
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n\r\n{TEXT}")).is_ok());
    }
}
