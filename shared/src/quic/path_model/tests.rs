use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::clock::Now;

const MTU: u64 = 1_200;
const MILLISECOND: Duration = Duration::from_millis(1);

/// A path with one queue, and a sender that always has more.
struct Path {
    /// Octets a second.
    rate: u64,
    /// There and back, without the queue.
    length: Duration,
    /// Octets that the queue holds.
    queue_max: u64,
    /// One of so many is lost on its way; 0: none.
    one_lost_of: u64,
}

struct Simulation {
    model: PathModel,
    now: Instant,
    /// When what the queue holds has left it.
    free_at: Instant,
    /// When each packet's end is known, when it was sent, and whether it has arrived.
    under_way: VecDeque<(Instant, Instant, bool)>,
    random: u64,
    sum: Sum,
}

#[derive(Debug, Default)]
struct Sum {
    arrived: u64,
    lost: u64,
    waited: Duration,
}

impl Simulation {
    fn new() -> Self {
        let now = Now::read().monotonic;
        Self {
            model: PathModel::new(1_200),
            now,
            free_at: now,
            under_way: VecDeque::new(),
            random: 7,
            sum: Sum::default(),
        }
    }

    /// What arrives in `time`, with no more than a packet a step acknowledged by itself.
    fn run(&mut self, path: &Path, time: Duration) -> Sum {
        let end = self.now + time;
        while self.now < end {
            self.send(path);
            let next = self.under_way.front().map_or(self.now + MILLISECOND, |(at, ..)| *at);
            self.now = next.max(self.now);
            self.hear();
        }
        std::mem::take(&mut self.sum)
    }

    fn send(&mut self, path: &Path) {
        while (self.under_way.len() as u64 + 1) * MTU <= self.model.window() {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let begins = self.free_at.max(self.now);
            let queued = (begins - self.now).as_micros() * u128::from(path.rate) / 1_000_000;
            let is_dropped = queued + u128::from(MTU) > u128::from(path.queue_max);
            let is_lost = (self.random >> 33).is_multiple_of(path.one_lost_of);
            if !is_dropped {
                self.free_at = begins + Duration::from_micros(MTU * 1_000_000 / path.rate);
                self.sum.waited = self.sum.waited.max(begins - self.now);
            }
            // What was dropped is missed when the next one arrives.
            let known_at = self.free_at.max(self.now) + path.length;
            self.under_way.push_back((known_at, self.now, !is_dropped && !is_lost));
        }
    }

    fn hear(&mut self) {
        while let Some((_, sent_at, has_arrived)) = self.under_way.pop_front_if(|(at, ..)| *at <= self.now) {
            if has_arrived {
                self.sum.arrived += MTU;
                self.model.arrived(self.now, sent_at, MTU, false);
            } else {
                self.sum.lost += MTU;
                self.model.lost(self.now, MTU);
            }
        }
        self.model.acknowledged(self.now);
    }
}

fn path(megabits: u64, length: u64, queue: Duration) -> Path {
    let rate = megabits * 125_000;
    let queue_max = rate * u64::try_from(queue.as_micros()).unwrap() / 1_000_000;
    Path { rate, length: Duration::from_millis(length), queue_max, one_lost_of: 0 }
}

/// Of what the path carries, in percent.
fn used(sum: &Sum, path: &Path, time: Duration) -> u64 {
    u64::try_from(u128::from(sum.arrived) * 100_000 / (u128::from(path.rate) * time.as_millis())).unwrap()
}

fn lost_per_mille(sum: &Sum) -> u64 {
    sum.lost * 1_000 / (sum.arrived + sum.lost)
}

const SECONDS: Duration = Duration::from_secs(10);

#[test]
fn a_path_that_loses_some_is_filled_all_the_same() {
    for one_lost_of in [0, 100, 50, 33] {
        let path = Path { one_lost_of, ..path(100, 40, Duration::from_millis(200)) };
        let mut simulation = Simulation::new();
        simulation.run(&path, Duration::from_secs(2));
        let sum = simulation.run(&path, SECONDS);
        assert!(used(&sum, &path, SECONDS) >= 85, "{one_lost_of}: {sum:?}");
    }
}

#[test]
fn a_deep_queue_stays_short() {
    for (megabits, length) in [(10, 20), (100, 40), (1_000, 1), (50, 150)] {
        let path = path(megabits, length, Duration::from_secs(1));
        let mut simulation = Simulation::new();
        simulation.run(&path, Duration::from_secs(5));
        let sum = simulation.run(&path, SECONDS);
        assert!(used(&sum, &path, SECONDS) >= 85, "{megabits}, {length}: {sum:?}");
        let bound = path.length / 2 + 4 * JITTER;
        assert!(sum.waited <= bound, "{megabits}, {length}: {sum:?}");
    }
}

#[test]
fn a_queue_that_is_too_small_is_not_overrun_for_ever() {
    for queue in [2, 5, 10] {
        let path = path(50, 40, Duration::from_millis(queue));
        let mut simulation = Simulation::new();
        simulation.run(&path, Duration::from_secs(2));
        let sum = simulation.run(&path, SECONDS);
        assert!(used(&sum, &path, SECONDS) >= 70, "{queue}: {sum:?}");
        assert!(lost_per_mille(&sum) <= 60, "{queue}: {} {sum:?}", lost_per_mille(&sum));
    }
}

#[test]
fn who_comes_to_a_slower_path_finds_out() {
    let (fast, slow) = (path(500, 10, Duration::from_millis(100)), path(5, 60, Duration::from_millis(200)));
    let mut simulation = Simulation::new();
    simulation.run(&fast, SECONDS);
    simulation.run(&slow, SECONDS);
    let sum = simulation.run(&slow, SECONDS);
    assert!(used(&sum, &slow, SECONDS) >= 80, "{sum:?}");
    assert!(lost_per_mille(&sum) <= 30, "{sum:?}");
}

#[test]
fn who_comes_to_a_longer_or_a_faster_path_finds_out() {
    let short = path(20, 2, Duration::from_millis(50));
    for (megabits, length) in [(20, 120), (300, 120), (300, 2)] {
        let then = path(megabits, length, Duration::from_millis(200));
        let mut simulation = Simulation::new();
        simulation.run(&short, SECONDS);
        simulation.run(&then, SECONDS);
        let sum = simulation.run(&then, SECONDS);
        assert!(used(&sum, &then, SECONDS) >= 80, "{megabits}, {length}: {sum:?}");
    }
}

#[test]
fn nothing_for_a_while_begins_with_the_least() {
    let path = path(100, 40, Duration::from_millis(200));
    let mut simulation = Simulation::new();
    simulation.run(&path, SECONDS);
    let before = simulation.model.window();
    simulation.model.collapse();
    assert_eq!(simulation.model.window(), 4 * MTU);
    simulation.run(&path, Duration::from_secs(2));
    assert!(simulation.model.window() > before / 2);
}

#[test]
fn a_router_that_marks_is_heard() {
    let path = path(100, 40, Duration::from_millis(200));
    let mut simulation = Simulation::new();
    simulation.run(&path, SECONDS);
    let before = simulation.model.window();
    simulation.model.lost(simulation.now, 0);
    simulation.run(&path, Duration::from_millis(100));
    assert!(simulation.model.ceiling.is_some_and(|ceiling| ceiling < before));
}

#[test]
fn an_app_that_sends_little_says_nothing_of_the_path() {
    let path = path(100, 40, Duration::from_millis(200));
    let mut simulation = Simulation::new();
    simulation.run(&path, SECONDS);
    let (before, mut now) = (simulation.model.rate(), simulation.now);
    for _ in 0..1_000 {
        now += 40 * MILLISECOND;
        simulation.model.arrived(now, now - 40 * MILLISECOND, 100, true);
        simulation.model.acknowledged(now);
    }
    assert_eq!(simulation.model.rate(), before);
}

#[derive(Debug, Clone)]
enum Event {
    Arrived(u64, u64, bool),
    Lost(u64),
    Acknowledged,
    Collapse,
    Restart,
    Mtu(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u64>(), 0..100_000_000_u64, any::<bool>()).prop_map(|(len, age, is_short)| Event::Arrived(
            len >> 20,
            age,
            is_short
        )),
        (0..u64::MAX >> 20).prop_map(Event::Lost),
        Just(Event::Acknowledged),
        Just(Event::Acknowledged),
        Just(Event::Collapse),
        Just(Event::Restart),
        (1_200..65_000_u16).prop_map(Event::Mtu),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_something_may_be_sent(events in prop::collection::vec((event(), 0..5_000_000_u64), 0..200)) {
        let mut model = PathModel::new(1_200);
        let mut now = Now::read().monotonic + Duration::from_secs(1_000);
        for (event, passed) in events {
            now += Duration::from_micros(passed);
            match event {
                Event::Arrived(len, age, is_short) => {
                    model.arrived(now, now - Duration::from_micros(age), len, is_short);
                }
                Event::Lost(len) => model.lost(now, len),
                Event::Acknowledged => model.acknowledged(now),
                Event::Collapse => model.collapse(),
                Event::Restart => model.restart(),
                Event::Mtu(mtu) => model.set_mtu(mtu),
            }
            prop_assert!(model.window() >= 4 * model.mtu);
            prop_assert!(model.window() <= WINDOW_MAX);
        }
    }
}
