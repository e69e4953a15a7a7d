//! Counters and gauges for Prometheus. No label names a tenant or a model.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// One recorder per process, however many servers run in it (tests run several).
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to record. Calling it again changes nothing.
pub(crate) fn install() {
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if ::metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("Another recorder is in place: this service's /metrics will be empty");
        }
        describe();
        handle
    });
}

/// Everything recorded so far, in Prometheus' text format.
pub(crate) fn render() -> String {
    RECORDER
        .get()
        .map(PrometheusHandle::render)
        .unwrap_or_default()
}

fn describe() {
    use ::metrics::{describe_counter, describe_gauge};
    describe_counter!(
        "attune_inference_requests_total",
        "Chat requests answered, by status."
    );
    describe_counter!(
        "attune_inference_cancelled_total",
        "Generations whose client went away."
    );
    describe_counter!("attune_inference_prompt_tokens_total", "Tokens of prompts.");
    describe_counter!(
        "attune_inference_completion_tokens_total",
        "Tokens generated."
    );
    describe_counter!(
        "attune_inference_base_loads_total",
        "Base models loaded into memory."
    );
    describe_counter!(
        "attune_inference_adapter_loads_total",
        "Adapters loaded into memory."
    );
    describe_gauge!("attune_inference_running", "Requests that generate now.");
    describe_gauge!(
        "attune_inference_waiting",
        "Requests that wait for their turn."
    );
}
