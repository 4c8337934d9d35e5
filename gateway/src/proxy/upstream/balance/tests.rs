use proptest::prelude::*;

use super::*;

const POLICIES: [Balancing; 5] = [
    Balancing::RoundRobin,
    Balancing::LeastRequest,
    Balancing::Random,
    Balancing::RingHash,
    Balancing::Maglev,
];

fn upstreams(weights: &[u32]) -> Vec<Upstream> {
    let upstream = |(place, weight): (usize, &u32)| Upstream {
        name: format!("http://app-{place}:8080"),
        origin: format!("http://app-{place}:8080").parse().unwrap(),
        socket: None,
        is_h2c: false,
        weight: *weight,
    };
    weights.iter().enumerate().map(upstream).collect()
}

fn draw(n: u64) -> Draw {
    Draw { key: hash(&[b"key", &n.to_be_bytes()]), random: hash(&[b"random", &n.to_be_bytes()]) }
}

/// How many of `count` requests each upstream gets, one after another.
fn shares(balancing: Balancing, weights: &[u32], count: u32) -> Vec<u32> {
    let mut balancer = Balancer::new(balancing, &upstreams(weights));
    let mut shares = vec![0; weights.len()];
    for n in 0..count {
        shares[balancer.pick(|_| true, |_| 0, draw(u64::from(n))).unwrap()] += 1;
    }
    shares
}

#[test]
fn each_policy_honours_the_weights_over_a_run() {
    for balancing in POLICIES {
        let shares = shares(balancing, &[1, 2, 7], 20_000);
        for (share, tenths) in shares.iter().zip([1.0, 2.0, 7.0]) {
            let ratio = f64::from(*share) / (2000.0 * tenths);
            assert!((0.75..1.25).contains(&ratio), "{balancing:?}: {shares:?}");
        }
    }
}

#[test]
fn round_robin_takes_turns_evenly() {
    let mut balancer = Balancer::new(Balancing::RoundRobin, &upstreams(&[3, 1, 1]));
    let turns: Vec<usize> = (0..10).filter_map(|n| balancer.pick(|_| true, |_| 0, draw(n))).collect();
    assert_eq!(turns, [0, 1, 0, 2, 0, 0, 1, 0, 2, 0]);
}

#[test]
fn the_least_loaded_upstream_for_its_weight_is_next() {
    let mut balancer = Balancer::new(Balancing::LeastRequest, &upstreams(&[1, 4]));
    for (loads, expected) in [([1, 3], 1), ([1, 5], 0), ([0, 1], 0), ([2, 0], 1)] {
        assert_eq!(balancer.pick(|_| true, |place| loads[place], draw(7)), Some(expected), "{loads:?}");
    }
}

#[test]
fn a_caller_stays_with_an_upstream_and_few_move_when_one_goes() {
    for balancing in [Balancing::RingHash, Balancing::Maglev] {
        let mut balancer = Balancer::new(balancing, &upstreams(&[1, 1, 1, 1]));
        let mut moved_to = [0; 4];
        for n in 0..2000 {
            let before = balancer.pick(|_| true, |_| 0, draw(n)).unwrap();
            let without = balancer.pick(|place| place != 2, |_| 0, draw(n)).unwrap();
            if before == 2 {
                moved_to[without] += 1;
            } else {
                assert_eq!(before, without, "{balancing:?}: only the callers of the lost one move");
            }
        }
        assert!(moved_to[2] == 0 && [0, 1, 3].iter().all(|place| moved_to[*place] > 50), "{moved_to:?}");
    }
}

#[test]
fn few_callers_move_when_the_file_names_one_upstream_less() {
    for balancing in [Balancing::RingHash, Balancing::Maglev] {
        let mut four = Balancer::new(balancing, &upstreams(&[1, 1, 1, 1]));
        let mut three = Balancer::new(balancing, &upstreams(&[1, 1, 1]));
        let moved = (0..2000)
            .filter(|n| {
                let before = four.pick(|_| true, |_| 0, draw(*n)).unwrap();
                before != 3 && three.pick(|_| true, |_| 0, draw(*n)) != Some(before)
            })
            .count();
        assert!(moved < 300, "{balancing:?}: {moved} of 2000 moved without need");
    }
}

proptest! {
    #[test]
    fn only_a_usable_upstream_is_picked_and_none_when_all_are_out(
        weights in prop::collection::vec(1_u32.., 1..6),
        usable in prop::collection::vec(any::<bool>(), 6),
        loads in prop::collection::vec(any::<usize>(), 6),
        draws in prop::collection::vec(any::<(u64, u64)>(), 1..8),
    ) {
        for balancing in [Balancing::RoundRobin, Balancing::LeastRequest, Balancing::Random, Balancing::RingHash] {
            let mut balancer = Balancer::new(balancing, &upstreams(&weights));
            let is_any = usable.iter().take(weights.len()).any(|usable| *usable);
            for (key, random) in &draws {
                let draw = Draw { key: *key, random: *random };
                let picked = balancer.pick(|place| usable[place], |place| loads[place], draw);
                prop_assert_eq!(picked.is_some(), is_any);
                prop_assert!(picked.is_none_or(|place| place < weights.len() && usable[place]));
            }
        }
    }
}

#[test]
fn maglev_picks_only_what_is_usable() {
    let mut balancer = Balancer::new(Balancing::Maglev, &upstreams(&[1, 1, 1000]));
    for n in 0..200 {
        assert_eq!(balancer.pick(|place| place == 0, |_| 0, draw(n)), Some(0));
        assert_eq!(balancer.pick(|_| false, |_| 0, draw(n)), None);
    }
}
