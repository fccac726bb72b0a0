//! A copy of one of the kernel's tables, kept by notifications and corrected by dumps.

use std::collections::{BTreeMap, BTreeSet};

/// Rows known of a kernel table.
///
/// Between [`Mirror::begin`] and [`Mirror::finish`] every row that is put is marked, and `finish` drops
/// the others: their deletion was missed.
#[derive(Debug)]
pub(super) struct Mirror<K, V> {
    rows: BTreeMap<K, V>,
    seen: Option<BTreeSet<K>>,
}

impl<K: Ord + Copy, V> Mirror<K, V> {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), seen: None }
    }

    /// A dump of the whole table starts.
    pub(super) fn begin(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    /// The dump ended. Only a complete one tells what is missing; the rows dropped are returned.
    pub(super) fn finish(&mut self, complete: bool) -> Vec<K> {
        let Some(seen) = self.seen.take() else { return Vec::new() };
        if !complete {
            return Vec::new();
        }
        let missing: Vec<K> = self.rows.keys().filter(|key| !seen.contains(key)).copied().collect();
        self.rows.retain(|key, _| seen.contains(key));
        missing
    }

    /// Stores a row and returns the one it replaces.
    pub(super) fn put(&mut self, key: K, value: V) -> Option<V> {
        if let Some(seen) = &mut self.seen {
            seen.insert(key);
        }
        self.rows.insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.rows.remove(key)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.rows.retain(|key, _| keep(key));
    }
}
