//! The process's metrics, as Prometheus reads them.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper ends of the duration histograms, in seconds: from a lookup to a large upload or a long answer.
const DURATION_BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// How long single durations wait to be counted.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder is the process's, not the service's: there may be several services in one process (in tests).
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts to record, the first time it is called.
pub(crate) fn record() -> Option<&'static PrometheusHandle> {
    RECORDER.get_or_init(install).as_ref()
}

/// Counts the durations that were recorded into their buckets, until `stop`. Each stays in memory until then, and whether
/// anybody scrapes this process is not known.
pub(crate) async fn keep_up(stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(UPKEEP))
        .await
        .is_some()
    {
        if let Some(recorder) = record() {
            recorder.run_upkeep();
        }
    }
}

fn install() -> Option<PrometheusHandle> {
    let built = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("duration_seconds".to_owned()),
            &DURATION_BUCKETS,
        )
        .and_then(PrometheusBuilder::install_recorder);
    match built {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!(%error, "Metrics are not recorded: the process already has a recorder");
            None
        }
    }
}
