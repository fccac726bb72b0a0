//! Services in order of addition, found by their identity without a search.

use std::collections::HashMap;

use crate::spec::{ServiceKey, ServiceSpec};
use crate::state::Service;
use crate::tally::Tally;

/// A list of services with an index by key.
///
/// The index holds when a service was added, not where it stands: the list is ordered by that time, so a binary search leads
/// from the one to the other, and a removal leaves the rest of the index alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    list: Vec<Service>,
    added: Vec<u64>,
    index: HashMap<ServiceKey, u64>,
    next: u64,
    tally: Tally,
}

impl Services {
    /// All, oldest first.
    pub(crate) fn as_slice(&self) -> &[Service] {
        &self.list
    }

    pub(crate) fn contains(&self, key: &ServiceKey) -> bool {
        self.index.contains_key(key)
    }

    pub(crate) fn get(&self, key: &ServiceKey) -> Option<&Service> {
        self.place(key).map(|at| &self.list[at])
    }

    /// For changes of its servers; its specification is changed by [`Services::respecify`].
    pub(crate) fn get_mut(&mut self, key: &ServiceKey) -> Option<&mut Service> {
        self.place(key).map(|at| &mut self.list[at])
    }

    /// Gives the service of this key another specification, if there is one.
    pub(crate) fn respecify(&mut self, spec: ServiceSpec) {
        let Some(at) = self.place(&spec.key) else { return };
        self.tally.remove(&self.list[at].spec);
        self.tally.add(&spec);
        self.list[at].spec = spec;
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Appends a service whose key is not there yet.
    pub(crate) fn push(&mut self, service: Service) {
        debug_assert!(!self.contains(&service.spec.key), "two services of one identity");
        self.index.insert(service.spec.key, self.next);
        self.added.push(self.next);
        self.tally.add(&service.spec);
        self.list.push(service);
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, key: &ServiceKey) -> Option<Service> {
        let at = self.place(key)?;
        self.index.remove(key);
        self.added.remove(at);
        let service = self.list.remove(at);
        self.tally.remove(&service.spec);
        Some(service)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn place(&self, key: &ServiceKey) -> Option<usize> {
        let added = self.index.get(key)?;
        self.added.binary_search(added).ok()
    }
}
