//! Metrics according to Prometheus' own tools.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

use visage::testing::FAMILIES;

use crate::support::{Server, page, wait_until};

fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed (Debian's package `prometheus` has it)");
    }
    found
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !is_installed("promtool") {
        return;
    }
    let server = Server::start(&[]);
    server.train_small().await;
    server.predict().await.unwrap();
    let text = server.page("/metrics").await;
    for family in FAMILIES {
        let help = format!("# HELP {} ", family.name);
        assert!(text.contains(&help), "{help} is missing in\n{text}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// The codes whose rates the recording rules compute.
fn codes_of_rules() -> BTreeSet<&'static str> {
    let rules = include_str!("../../deploy/prometheus/rules.yml");
    let after = rules.split("_requests_total{code=~\"").skip(1);
    let codes = after.filter_map(|text| text.split('"').next());
    codes.flat_map(|codes| codes.split('|')).collect()
}

#[tokio::test]
async fn codes_of_the_rules_start_at_0_for_every_method_and_route() {
    let codes = codes_of_rules();
    assert_eq!(codes, BTreeSet::from(["data_loss", "internal", "unknown"]));
    let server = Server::start(&[]);
    let text = server.page("/metrics").await;
    for (metric, label, least) in [
        ("visage_rpc_requests_total", "method", 40),
        ("visage_http_requests_total", "route", 13),
    ] {
        let prefix = format!("{metric}{{{label}=\"");
        let labels: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.split('"').next())
            .collect();
        assert!(labels.len() >= least, "{labels:?}");
        for value in labels {
            for code in &codes {
                let series = format!("\n{metric}{{{label}=\"{value}\",code=\"{code}\"}} 0\n");
                assert!(text.contains(&series), "{series} is missing in\n{text}");
            }
        }
    }
}

/// Kills the process at the end of the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn prometheus_scrapes_the_server() {
    if !is_installed("prometheus") {
        return;
    }
    let server = Server::start(&[]);
    server.train_small().await;
    server.predict().await.unwrap();
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: visage\n  static_configs:\n  - targets: ['{}']\n",
        server.http
    );
    fs_err::write(server.path("prometheus.yml"), config).unwrap();
    // Prometheus does not report a port that it chose, so a free one is chosen here.
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let log = fs_err::File::create(server.path("prometheus.log")).unwrap();
    let process = Command::new("prometheus")
        .arg(format!(
            "--config.file={}",
            server.path("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            server.path("tsdb").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(process);
    let query = async |text: &str| -> Option<f64> {
        // Percent-encoded, because a query has braces and quotes.
        let text: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let address = format!("http://127.0.0.1:{port}/api/v1/query?query={text}");
        let answer: serde_json::Value = serde_json::from_str(&page(&address).await.ok()?).ok()?;
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        value.parse().ok()
    };
    wait_until("Prometheus scrapes", async || {
        query("up{job=\"visage\"}").await == Some(1.0)
    })
    .await;
    let expected = [
        ("visage_build_info", 1.0),
        ("visage_live_model_info{version=\"1\"}", 1.0),
        ("visage_trainings{state=\"succeeded\"}", 1.0),
        ("visage_predict_images_total{outcome=\"ok\"}", 1.0),
        ("visage_training_epoch", 2.0),
        ("visage_predict_inference_seconds_count", 1.0),
    ];
    for (text, value) in expected {
        wait_until(text, async || query(text).await == Some(value)).await;
    }
    // Prometheus parsed the series: a histogram has quantiles.
    let quantile =
        query("histogram_quantile(0.5,sum(visage_predict_decode_seconds_bucket)by(le))").await;
    assert!(
        quantile.is_some_and(|seconds| seconds > 0.0 && seconds < 10.0),
        "{quantile:?}"
    );
    let budget = Duration::from_secs(1).as_secs_f64();
    let scrape = query("scrape_duration_seconds").await.unwrap();
    assert!(scrape < budget, "a scrape took {scrape} s");
}
