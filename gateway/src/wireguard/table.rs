//! Finds peers: by key as long as they are strangers, by index afterwards.

use std::collections::HashMap;

use super::tunnel::Index;

/// All peers that may come in, each with what the shell keeps of it.
#[derive(Debug, Clone)]
pub struct Table<P> {
    by_key: HashMap<[u8; 32], P>,
    by_index: HashMap<Index, P>,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_index: HashMap::new() }
    }
}

impl<P: Clone> Table<P> {
    /// Adds a peer under an index that is free, which `random` is asked for.
    pub fn free_index(&self, mut random: impl FnMut() -> u32) -> Index {
        loop {
            let index = Index::new(random());
            // Far fewer peers than indices: this ends.
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// Puts a peer in.
    pub fn insert(&mut self, key: [u8; 32], index: Index, peer: P) {
        self.by_key.insert(key, peer.clone());
        self.by_index.insert(index, peer);
    }

    /// The peer that has a public key.
    #[must_use]
    pub fn of_key(&self, key: &[u8; 32]) -> Option<&P> {
        self.by_key.get(key)
    }

    /// The peer that an index was given to.
    #[must_use]
    pub fn of_index(&self, index: Index) -> Option<&P> {
        self.by_index.get(&index)
    }

    /// All of them.
    pub fn peers(&self) -> impl Iterator<Item = &P> {
        self.by_key.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
