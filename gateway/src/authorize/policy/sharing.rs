//! Criteria that stand in a policy more than once, as they do when a policy has a rule for each person: each is asked
//! once a decision.

use std::collections::HashMap;

use super::LabelledGroup;
use crate::authorize::{
    CheckRequest,
    criterion::{Answer, Criterion},
};

/// How many criteria are remembered; the others are asked wherever they stand.
const SHARED_MAX: usize = 64;

/// Where the answer of a criterion is kept while a decision is taken; `None` for one that stands in one place.
pub(super) type Slot = Option<u8>;

/// The answers so far, in one decision.
pub(super) struct Answers([Option<Answer>; SHARED_MAX]);

impl Answers {
    pub(super) const NONE: Self = Self([None; SHARED_MAX]);

    #[inline]
    pub(super) fn of(&mut self, criterion: &Criterion, slot: Slot, check: &CheckRequest<'_>) -> Answer {
        match slot.and_then(|slot| self.0.get_mut(usize::from(slot))) {
            Some(kept) => *kept.get_or_insert_with(|| criterion.answer(check)),
            None => criterion.answer(check),
        }
    }
}

/// Gives equal criteria the same slot.
pub(super) fn share<'a>(groups: impl Iterator<Item = &'a mut LabelledGroup>) {
    let mut groups: Vec<_> = groups.collect();
    // Numbers are not hashable where they may be fractions; what is written alike is equal.
    let mut places: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    for (group, labelled) in groups.iter().enumerate() {
        for (criterion, asked) in labelled.group.criteria.iter().enumerate() {
            places.entry(format!("{asked:?}")).or_default().push((group, criterion));
        }
    }
    for labelled in &mut groups {
        labelled.slots = vec![None; labelled.group.criteria.len()];
    }
    let mut shared: Vec<_> = places.into_values().filter(|places| places.len() > 1).collect();
    shared.sort_unstable_by_key(|places| std::cmp::Reverse(places.len()));
    for (slot, places) in (0..).zip(shared.into_iter().take(SHARED_MAX)) {
        for (group, criterion) in places {
            groups[group].slots[criterion] = Some(slot);
        }
    }
}
