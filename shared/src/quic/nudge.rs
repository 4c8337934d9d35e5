//! quinn's congestion controller: the [`PathModel`], which lets a probe out although its window is full.
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

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};

use super::path_model::{INITIAL_WINDOW, PathModel};

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

/// Makes controllers that can be nudged.
#[derive(Debug, Default)]
pub(super) struct NudgeFactory;

impl ControllerFactory for NudgeFactory {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Nudged { model: PathModel::new(current_mtu), allowance: Arc::default() })
    }
}

#[derive(Debug, Clone)]
struct Nudged {
    model: PathModel,
    /// Octets above the window; none once anything is heard.
    allowance: Arc<AtomicU64>,
}

impl Controller for Nudged {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &quinn_proto::RttEstimator,
    ) {
        if self.allowance.swap(0, Ordering::Relaxed) > 0 {
            // Who was nudged came back by another path, or by one that was broken.
            self.model.restart();
        }
        self.model.arrived(now, sent, bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.model.acknowledged(now);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.model.collapse();
        } else {
            self.model.lost(now, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.model.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.model.window() + self.allowance.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
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
        let controller = Arc::new(NudgeFactory).build(Now::read().monotonic, 1200);
        let window = controller.window();
        let copy = controller.clone_box().into_any().downcast::<Nudged>().unwrap();
        copy.allowance.store(NUDGE_LEN, Ordering::Relaxed);
        assert_eq!(controller.window(), window + NUDGE_LEN);
    }
}
