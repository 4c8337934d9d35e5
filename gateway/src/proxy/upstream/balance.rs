//! Which upstream a request goes to (`load_balancing_policy`): chance and hash are arguments, nothing here reads a
//! clock or a socket.

#[cfg(test)]
mod tests;

use std::iter;

use sha2::{Digest as _, Sha256};

use crate::config::{Balancing, Upstream};

/// Points on the ring, shared by weight: enough that two equal upstreams differ by a few per cent.
const RING_LEN: u64 = 4096;

/// Places of Maglev's table: a prime, well over a hundred times the usual number of upstreams.
const MAGLEV_LEN: usize = 16_381;

/// How often a key is hashed again when Maglev's table names an upstream that is out, before the next one is taken.
const MAGLEV_PROBES_MAX: u64 = 32;

/// What one choice is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    /// For policies that keep a caller with an upstream: a hash of who asks.
    pub(crate) key: u64,
    /// For the others: chance.
    pub(crate) random: u64,
}

/// Chooses among the upstreams of one route.
#[derive(Debug)]
pub(crate) struct Balancer {
    weights: Vec<u32>,
    method: Method,
}

#[derive(Debug)]
enum Method {
    /// What each upstream has saved up: the richest is next, and pays the round.
    RoundRobin(Vec<i64>),
    LeastRequest,
    Random,
    /// Ascending points, each with its upstream.
    RingHash(Vec<(u64, usize)>),
    /// The upstream of each place.
    Maglev(Vec<usize>),
}

impl Balancer {
    pub(crate) fn new(balancing: Balancing, upstreams: &[Upstream]) -> Self {
        let weights: Vec<u32> = upstreams.iter().map(|upstream| upstream.weight).collect();
        let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        let method = match balancing {
            Balancing::RoundRobin => Method::RoundRobin(vec![0; weights.len()]),
            Balancing::LeastRequest => Method::LeastRequest,
            Balancing::Random => Method::Random,
            Balancing::RingHash => Method::RingHash(ring(&names, &weights)),
            Balancing::Maglev => Method::Maglev(maglev(&names, &weights)),
        };
        Self { weights, method }
    }

    /// One of those that are `usable`, or none if none is. `load` is how many requests an upstream has under way.
    pub(crate) fn pick(
        &mut self,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> usize,
        draw: Draw,
    ) -> Option<usize> {
        let weights = &self.weights;
        let all = || (0..weights.len()).filter(|place| usable(*place));
        match &mut self.method {
            Method::RoundRobin(saved) => richest(saved, weights, all),
            Method::LeastRequest => {
                // Loads are compared per weight: a/v < b/w is a*w < b*v.
                let per_weight = |place: usize| (load(place) as u128, u128::from(weights[place]));
                let is_less = |(a, v): (u128, u128), (b, w): (u128, u128)| a * w < b * v;
                let least = all().map(per_weight).reduce(|a, b| if is_less(b, a) { b } else { a })?;
                by_chance(weights, || all().filter(|place| !is_less(least, per_weight(*place))), draw.random)
            }
            Method::Random => by_chance(weights, all, draw.random),
            Method::RingHash(ring) => {
                let start = ring.partition_point(|(point, _)| *point < draw.key);
                let around = ring[start..].iter().chain(&ring[..start]);
                around.map(|(_, place)| *place).find(|place| usable(*place))
            }
            Method::Maglev(table) => {
                let probe = |turn| {
                    let key = if turn == 0 { draw.key } else { hash(&[&draw.key.to_be_bytes(), &[turn]]) };
                    table[index(key, table.len())]
                };
                let probes = (0..MAGLEV_PROBES_MAX).filter_map(|turn| u8::try_from(turn).ok()).map(probe);
                probes.chain(all()).find(|place| usable(*place))
            }
        }
    }
}

/// Smooth weighted round robin: in a whole round each has as many turns as its weight, spread evenly.
fn richest<I: Iterator<Item = usize>>(
    saved: &mut [i64],
    weights: &[u32],
    all: impl Fn() -> I,
) -> Option<usize> {
    let round: i64 = all().map(|place| i64::from(weights[place])).sum();
    for place in all() {
        saved[place] += i64::from(weights[place]);
    }
    // Of equals the first, so that the order of the file is the order of the turns.
    let next = all().reduce(|a, b| if saved[b] > saved[a] { b } else { a })?;
    saved[next] -= round;
    Some(next)
}

/// One of `all`, each as likely as its weight says.
fn by_chance<I: Iterator<Item = usize>>(weights: &[u32], all: impl Fn() -> I, random: u64) -> Option<usize> {
    let total: u64 = all().map(|place| u64::from(weights[place])).sum();
    let mut left = random.checked_rem(total)?;
    all().find(|place| {
        let weight = u64::from(weights[*place]);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

/// The first eight octets of SHA-256: the same on every machine, so that gateways side by side choose alike.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

fn index(hash: u64, len: usize) -> usize {
    usize::try_from(hash % len as u64).unwrap_or_default()
}

/// A consistent hash ring: an upstream's points depend on its own name alone.
fn ring(names: &[&str], weights: &[u32]) -> Vec<(u64, usize)> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let points = |place: usize| (u64::from(weights[place]) * RING_LEN / total.max(1)).max(1);
    let mut ring: Vec<(u64, usize)> = (0..names.len())
        .flat_map(|place| (0..points(place)).map(move |point| (place, point)))
        .map(|(place, point)| (hash(&[names[place].as_bytes(), b"_", &point.to_be_bytes()]), place))
        .collect();
    ring.sort_unstable();
    ring
}

/// The look-up table of Maglev (Eisenbud et al., NSDI 2016, 3.4): each upstream takes the places that it prefers, in
/// turns as frequent as its weight says, until all are taken.
fn maglev(names: &[&str], weights: &[u32]) -> Vec<usize> {
    let heaviest = weights.iter().copied().max().map_or(1, u64::from);
    let mut preferences: Vec<_> = names
        .iter()
        .map(|name| {
            let offset = index(hash(&[b"offset", name.as_bytes()]), MAGLEV_LEN);
            let skip = index(hash(&[b"skip", name.as_bytes()]), MAGLEV_LEN - 1) + 1;
            iter::successors(Some(offset), move |place| Some((place + skip) % MAGLEV_LEN))
        })
        .collect();
    let mut saved = vec![0; names.len()];
    let mut table = vec![None; MAGLEV_LEN];
    let mut left = MAGLEV_LEN;
    while left > 0 {
        for (member, preference) in preferences.iter_mut().enumerate() {
            saved[member] += u64::from(weights[member]);
            if saved[member] < heaviest || left == 0 {
                continue;
            }
            saved[member] -= heaviest;
            // The skip is coprime to the length: each walk meets every place.
            if let Some(free) = preference.find(|place| table[*place].is_none()) {
                table[free] = Some(member);
                left -= 1;
            }
        }
    }
    table.into_iter().flatten().collect()
}
