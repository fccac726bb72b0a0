//! Who wants to know about which address, and what they were told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use super::{Change, NextHop, State, Target};

#[derive(Debug, Default)]
struct Audience {
    ids: BTreeSet<u32>,
    told: Option<State>,
    /// Servers that joined since; the next answer is news for them even if it did not change.
    untold: BTreeSet<u32>,
}

/// The set of targets, by id and by address.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_id: HashMap<u32, IpAddr>,
    by_addr: BTreeMap<IpAddr, Audience>,
    given: bool,
}

/// Addresses that a change concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    pub(super) joined: BTreeSet<IpAddr>,
    pub(super) left: BTreeSet<IpAddr>,
}

impl Targets {
    pub(super) fn change(&mut self, change: Change) -> Concerned {
        self.given = true;
        let mut concerned = Concerned::default();
        match change {
            Change::Set(targets) => {
                let keep: HashSet<u32> = targets.iter().map(|target| target.id).collect();
                let gone: Vec<u32> = self.by_id.keys().filter(|id| !keep.contains(id)).copied().collect();
                gone.into_iter().for_each(|id| self.leave(id, &mut concerned));
                targets.iter().for_each(|target| self.join(target, &mut concerned));
            }
            Change::Add(targets) => targets.iter().for_each(|target| self.join(target, &mut concerned)),
            Change::Remove(ids) => ids.into_iter().for_each(|id| self.leave(id, &mut concerned)),
        }
        concerned.left.retain(|addr| !self.by_addr.contains_key(addr));
        concerned.joined.retain(|addr| self.by_addr.contains_key(addr));
        concerned
    }

    fn join(&mut self, target: &Target, concerned: &mut Concerned) {
        let addr = target.addr;
        if self.by_id.get(&target.id) == Some(&addr) {
            return;
        }
        self.leave(target.id, concerned);
        self.by_id.insert(target.id, addr);
        let audience = self.by_addr.entry(addr).or_default();
        audience.ids.insert(target.id);
        audience.untold.insert(target.id);
        concerned.joined.insert(addr);
    }

    fn leave(&mut self, id: u32, concerned: &mut Concerned) {
        let Some(addr) = self.by_id.remove(&id) else { return };
        let Some(audience) = self.by_addr.get_mut(&addr) else { return };
        audience.ids.remove(&id);
        audience.untold.remove(&id);
        if audience.ids.is_empty() {
            self.by_addr.remove(&addr);
            concerned.left.insert(addr);
        }
    }

    /// Notes what holds for an address; the event, if that is news for anybody.
    pub(super) fn tell(&mut self, addr: IpAddr, state: State) -> Option<NextHop> {
        let audience = self.by_addr.get_mut(&addr)?;
        let untold = std::mem::take(&mut audience.untold);
        let changed = audience.told.replace(state) != Some(state);
        let ids = if changed { &audience.ids } else { &untold };
        let ids: Vec<u32> = ids.iter().copied().collect();
        (!ids.is_empty()).then_some(NextHop { addr, ids, state })
    }

    /// Whether the caller has said what it wants at all.
    pub(super) fn are_given(&self) -> bool {
        self.given
    }

    pub(super) fn wants(&self, addr: IpAddr) -> bool {
        self.by_addr.contains_key(&addr)
    }

    /// The address, if it is a target's.
    pub(super) fn wanted(&self, addr: IpAddr) -> Option<IpAddr> {
        self.wants(addr).then_some(addr)
    }

    /// The targets' addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_addr.keys().copied()
    }

    /// The targets' addresses within a range.
    pub(super) fn addresses_in(&self, range: RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_addr.range(range).map(|(addr, _)| *addr)
    }
}
