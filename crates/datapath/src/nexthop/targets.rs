//! Who wants to know about which address, and what they were told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use super::{Change, NextHop, State, Target};

/// An address together with how it may be reached: what servers share an answer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    pub(super) addr: IpAddr,
    pub(super) on_link: bool,
}

impl From<&Target> for Way {
    fn from(target: &Target) -> Self {
        Self { addr: target.addr, on_link: target.on_link }
    }
}

#[derive(Debug, Default)]
struct Audience {
    ids: BTreeSet<u32>,
    told: Option<State>,
    /// Servers that joined since; the next answer is news for them even if it did not change.
    untold: BTreeSet<u32>,
}

/// The set of targets, by id and by way.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_id: HashMap<u32, Way>,
    by_way: BTreeMap<Way, Audience>,
    given: bool,
}

/// Ways that a change concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    pub(super) joined: BTreeSet<Way>,
    pub(super) left: BTreeSet<Way>,
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
        concerned.left.retain(|way| !self.by_way.contains_key(way));
        concerned.joined.retain(|way| self.by_way.contains_key(way));
        concerned
    }

    fn join(&mut self, target: &Target, concerned: &mut Concerned) {
        let way = Way::from(target);
        if self.by_id.get(&target.id) == Some(&way) {
            return;
        }
        self.leave(target.id, concerned);
        self.by_id.insert(target.id, way);
        let audience = self.by_way.entry(way).or_default();
        audience.ids.insert(target.id);
        audience.untold.insert(target.id);
        concerned.joined.insert(way);
    }

    fn leave(&mut self, id: u32, concerned: &mut Concerned) {
        let Some(way) = self.by_id.remove(&id) else { return };
        let Some(audience) = self.by_way.get_mut(&way) else { return };
        audience.ids.remove(&id);
        audience.untold.remove(&id);
        if audience.ids.is_empty() {
            self.by_way.remove(&way);
            concerned.left.insert(way);
        }
    }

    /// Notes what holds for a way; the event, if that is news for anybody.
    pub(super) fn tell(&mut self, way: Way, state: State) -> Option<NextHop> {
        let audience = self.by_way.get_mut(&way)?;
        let untold = std::mem::take(&mut audience.untold);
        let changed = audience.told.replace(state) != Some(state);
        let ids = if changed { &audience.ids } else { &untold };
        let ids: Vec<u32> = ids.iter().copied().collect();
        (!ids.is_empty()).then_some(NextHop { addr: way.addr, on_link: way.on_link, ids, state })
    }

    /// Whether the caller has said what it wants at all.
    pub(super) fn are_given(&self) -> bool {
        self.given
    }

    /// The ways of one address.
    pub(super) fn ways_to(&self, addr: IpAddr) -> impl Iterator<Item = Way> + '_ {
        [true, false]
            .into_iter()
            .map(move |on_link| Way { addr, on_link })
            .filter(|way| self.by_way.contains_key(way))
    }

    pub(super) fn wants(&self, addr: IpAddr) -> bool {
        self.ways_to(addr).next().is_some()
    }

    /// The targets' addresses; one may come twice.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_way.keys().map(|way| way.addr)
    }

    /// The targets' addresses within a range; one may come twice.
    pub(super) fn addresses_in(&self, range: RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let first = Way { addr: *range.start(), on_link: false };
        let last = Way { addr: *range.end(), on_link: true };
        self.by_way.range(first..=last).map(|(way, _)| way.addr)
    }
}
