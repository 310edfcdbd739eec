//! The state of the shop for a Prometheus server, in the text format OpenMetrics 1.0.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::{Error, ErrorKind, Result};
use crate::judge::Verdict;
use crate::monitor::Snapshot;
use crate::observation::Value;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfProbe {
    probe: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    probe: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReading {
    probe: String,
    reading: String,
}

type Number<L> = Family<L, Gauge<f64, AtomicU64>>;

/// What a snapshot says, as metrics: `caretaker_probe_state` (1 for the state that each probe is in, 0 for the others),
/// `caretaker_probe_reading`, `caretaker_probe_last_look_timestamp_seconds`, `caretaker_probe_duration_seconds`,
/// `caretaker_incidents_open`, `caretaker_troubles`. A reading that is no number is left out, not 0.
///
/// # Errors
/// Where it cannot be written, which does not happen in practice.
pub fn exposition(snapshot: &Snapshot) -> Result<String> {
    let mut registry = Registry::with_prefix("caretaker");
    let (state, reading) = (Family::<OfState, Gauge>::default(), Number::<OfReading>::default());
    let (last, took) = (Number::<OfProbe>::default(), Number::<OfProbe>::default());
    let (open, troubles) = (Gauge::<i64>::default(), Gauge::<i64>::default());
    registry.register("probe_state", "1 for the confirmed state of a probe", state.clone());
    registry.register("probe_reading", "The last value of a reading, in its own unit", reading.clone());
    registry.register("probe_last_look_timestamp_seconds", "When the last look began", last.clone());
    registry.register("probe_duration_seconds", "How long the last look took", took.clone());
    registry.register("incidents_open", "Incidents that go on", open.clone());
    registry.register("troubles", "Things that the monitor itself cannot do", troubles.clone());
    open.set(i64::try_from(snapshot.incidents.len()).unwrap_or(i64::MAX));
    troubles.set(i64::try_from(snapshot.troubles.len()).unwrap_or(i64::MAX));
    for probe in &snapshot.probes {
        let is = probe.verdict.unwrap_or(Verdict::Unknown);
        for (verdict, name) in [
            (Verdict::Healthy, "healthy"),
            (Verdict::Unknown, "unknown"),
            (Verdict::Warning, "warning"),
            (Verdict::Critical, "critical"),
        ] {
            let labels = OfState { probe: probe.id.clone(), state: name };
            state.get_or_create(&labels).set(i64::from(is == verdict));
        }
        let Some(look) = &probe.last else { continue };
        let labels = OfProbe { probe: probe.id.clone() };
        last.get_or_create(&labels).set(look.began.timestamp_millis() as f64 / 1000.0);
        took.get_or_create(&labels).set(look.took.as_secs_f64());
        for r in look.seen.iter().flat_map(|s| &s.readings) {
            let number = match r.value {
                Value::Number(n) if n.is_finite() => n,
                Value::Flag(flag) => f64::from(u8::from(flag)),
                _ => continue,
            };
            let labels = OfReading { probe: probe.id.clone(), reading: r.name.clone() };
            reading.get_or_create(&labels).set(number);
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| Error::new(ErrorKind::Malformed, "metrics that cannot be written").with_source(e))?;
    Ok(text)
}
