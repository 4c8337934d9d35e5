//! How much streams may keep together, until their other ends confirm it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Octets that all streams of somebody may keep together; part of what all of theirs together may, and so on.
///
/// ```
/// use pomerium_shared::resume::Budget;
/// let everybody = Budget::new(512 << 20);
/// let alice = everybody.part(64 << 20);
/// ```
#[derive(Debug, Clone)]
pub struct Budget(Arc<Purse>);

#[derive(Debug)]
struct Purse {
    left: AtomicUsize,
    above: Option<Budget>,
}

impl Budget {
    /// So many octets.
    #[must_use]
    pub fn new(octets: usize) -> Self {
        Self(Arc::new(Purse { left: AtomicUsize::new(octets), above: None }))
    }

    /// So many of these at most.
    #[must_use]
    pub fn part(&self, octets: usize) -> Self {
        Self(Arc::new(Purse { left: AtomicUsize::new(octets), above: Some(self.clone()) }))
    }

    fn take(&self, octets: usize) -> bool {
        let taken =
            self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(octets));
        if taken.is_err() {
            return false;
        }
        if self.0.above.as_ref().is_some_and(|above| !above.take(octets)) {
            self.0.left.fetch_add(octets, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, octets: usize) {
        self.0.left.fetch_add(octets, Ordering::Relaxed);
        if let Some(above) = &self.0.above {
            above.give_back(octets);
        }
    }
}

/// What one stream has taken, and gives back at its end.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    taken: usize,
}

impl Share {
    pub(super) const fn of(budget: Budget) -> Self {
        Self { budget, taken: 0 }
    }

    /// Takes as much as it needs to have `octets`; `false`, with nothing changed, if there is not so much.
    pub(super) fn grow_to(&mut self, octets: usize) -> bool {
        let more = octets.saturating_sub(self.taken);
        let has_grown = self.budget.take(more);
        if has_grown {
            self.taken += more;
        }
        has_grown
    }

    /// Gives back what is above `octets`.
    pub(super) fn shrink_to(&mut self, octets: usize) {
        let less = self.taken.saturating_sub(octets);
        self.taken -= less;
        self.budget.give_back(less);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_their_part_nor_all_more_than_the_whole() {
        let all = Budget::new(10);
        let mut one = Share::of(all.part(6));
        let mut other = Share::of(all.part(6));
        assert!(one.grow_to(6) && !one.grow_to(7));
        assert!(!other.grow_to(5), "the whole has four left");
        assert!(other.grow_to(4));
        one.shrink_to(5);
        assert!(other.grow_to(5));
        drop(one);
        assert!(other.grow_to(6) && !other.grow_to(7));
        drop(other);
        assert!(Share::of(all).grow_to(10), "all is back");
    }
}
