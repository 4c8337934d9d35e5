//! CUBIC, which lets a probe out although its window is full.
//!
//! What is on the way when a path breaks fills the window, and only the timer of lost packets gets anything out, which
//! doubles each time: after twenty seconds without a network it would be silent for twenty more. [`nudge`] lets a packet
//! or two out at once.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Octets that one nudge lets out: two packets.
const NUDGE_LEN: u64 = 3_000;

/// Octets that all nudges together may let out before anything is heard.
const ALLOWANCE_MAX: u64 = 40 * NUDGE_LEN;

/// Lets a packet or two out of a connection made with [`super::client_config`], whatever is on the way already. There must be
/// something to send: a rebound socket pings.
pub fn nudge(connection: &quinn::Connection) {
    if let Ok(state) = connection.congestion_state().into_any().downcast::<Nudged>() {
        // The state is a copy, whose allowance is the original's.
        let _before = state.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |allowance| {
            Some((allowance + NUDGE_LEN).min(ALLOWANCE_MAX))
        });
    }
}

/// Makes CUBIC that can be nudged.
#[derive(Debug, Default)]
pub(super) struct NudgeFactory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for NudgeFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(Nudged { inner, allowance: Arc::default() })
    }
}

struct Nudged {
    inner: Box<dyn Controller>,
    /// Octets above the window; none once anything is heard.
    allowance: Arc<AtomicU64>,
}

impl Controller for Nudged {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.allowance.store(0, Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window() + self.allowance.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), allowance: Arc::clone(&self.allowance) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    #[test]
    fn a_copy_nudges_the_original() {
        let controller = Arc::new(NudgeFactory::default()).build(Now::read().monotonic, 1200);
        let window = controller.window();
        let copy = controller.clone_box().into_any().downcast::<Nudged>().unwrap();
        copy.allowance.store(NUDGE_LEN, Ordering::Relaxed);
        assert_eq!(controller.window(), window + NUDGE_LEN);
        assert_eq!(controller.initial_window(), copy.inner.initial_window());
    }
}
