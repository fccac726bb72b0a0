//! The resolver against a scripted kernel: no socket, no waiting.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use xlvs_core::vlan::Tags;

use super::{resolver::SETTLE, *};

const ETH: u32 = 2;
const OTHER: u32 = 3;
const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];
const PEER_MAC: Mac = [2, 0, 0, 0, 0, 2];
const NEW_MAC: Mac = [2, 0, 0, 0, 0, 3];
const SOURCE: &str = "10.1.0.1";
const SERVER: &str = "10.1.0.11";
const GATEWAY: &str = "10.1.0.254";
const FAR: &str = "192.0.2.11";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn target(id: u32, addr: &str) -> Target {
    Target { id, addr: ip(addr) }
}

fn link(ifindex: u32) -> Link {
    Link {
        ifindex,
        name: format!("l{ifindex}"),
        mac: Some(OWN_MAC),
        mtu: 1500,
        up: true,
        carrier: true,
        vlan: None,
    }
}

fn on_link() -> Result<Route, Reason> {
    Ok(Route { ifindex: ETH, gateway: None, mtu: None, source: Some(ip(SOURCE)) })
}

fn via(gateway: &str) -> Result<Route, Reason> {
    Ok(Route { ifindex: ETH, gateway: Some(ip(gateway)), mtu: None, source: Some(ip(SOURCE)) })
}

fn key(addr: &str) -> NeighbourKey {
    NeighbourKey { ifindex: ETH, addr: ip(addr) }
}

fn neighbour(addr: &str, nud: Nud, mac: Option<Mac>) -> Neighbour {
    Neighbour { key: key(addr), nud, mac, managed: true, ours: true }
}

fn reachable(addr: &str, mac: Mac) -> Neighbour {
    neighbour(addr, Nud::Reachable, Some(mac))
}

fn sends_to(dest_mac: Mac) -> State {
    State::Resolved { ifindex: ETH, source_mac: OWN_MAC, dest_mac, mtu: 1500, source: ip(SOURCE) }
}

fn unresolved(reason: Reason) -> State {
    State::Unresolved { reason }
}

fn care(addr: &str, upkeep: Upkeep) -> Request {
    Request::Neighbour { key: key(addr), upkeep }
}

/// A resolver, and the time it believes it is.
struct Rig {
    resolver: Resolver,
    now: Instant,
}

impl Rig {
    /// One that has had its first look at a kernel with these links and neighbours.
    fn with(links: &[Link], neighbours: &[Neighbour]) -> Self {
        let now = Instant::now();
        let mut rig = Self { resolver: Resolver::new(now), now };
        assert_eq!(rig.tick().requests, [Request::Dump(Dump::Links)]);
        rig.look(links, neighbours, true);
        rig
    }

    fn one_link() -> Self {
        Self::with(&[link(ETH)], &[])
    }

    /// Answers the dumps of a full look that has begun.
    fn look(&mut self, links: &[Link], neighbours: &[Neighbour], complete: bool) -> Effects {
        for link in links {
            self.step(Event::Link(link.clone()));
        }
        let effects = self.step(Event::DumpDone { dump: Dump::Links, complete });
        assert_eq!(effects.requests, [Request::Dump(Dump::Neighbours)]);
        for entry in neighbours {
            self.step(Event::Neighbour(*entry));
        }
        self.step(Event::DumpDone { dump: Dump::Neighbours, complete })
    }

    fn step(&mut self, event: Event) -> Effects {
        self.resolver.step(event, self.now)
    }

    fn tick(&mut self) -> Effects {
        self.step(Event::Tick)
    }

    fn after(&mut self, time: Duration) -> Effects {
        self.now += time;
        self.tick()
    }

    fn add(&mut self, target: Target) -> Effects {
        self.step(Event::Targets(Change::Add(vec![target])))
    }

    fn answer(&mut self, addr: &str, answer: Result<Route, Reason>) -> Effects {
        self.step(Event::RouteAnswer { addr: ip(addr), answer })
    }

    fn sees(&mut self, entry: Neighbour) -> Option<State> {
        only_state(self.step(Event::Neighbour(entry)))
    }

    /// A direct-routing server that is up and known.
    fn resolved() -> Self {
        let mut rig = Self::one_link();
        rig.add(target(1, SERVER));
        rig.answer(SERVER, on_link());
        assert_eq!(rig.sees(reachable(SERVER, PEER_MAC)), Some(sends_to(PEER_MAC)));
        rig
    }
}

fn only_state(effects: Effects) -> Option<State> {
    assert!(effects.changes.len() <= 1, "more than one change: {effects:?}");
    effects.changes.first().map(|change| change.state)
}

#[test]
fn a_direct_server_is_asked_about_cared_for_and_resolved() {
    let mut rig = Rig::one_link();
    assert_eq!(rig.add(target(7, SERVER)).requests, [Request::Route(ip(SERVER))]);

    let effects = rig.answer(SERVER, on_link());
    assert_eq!(effects.requests, [care(SERVER, Upkeep::CreateManaged)]);
    assert_eq!(only_state(effects), Some(unresolved(Reason::NeighbourPending)));

    assert_eq!(rig.sees(neighbour(SERVER, Nud::Incomplete, None)), None);
    let effects = rig.step(Event::Neighbour(reachable(SERVER, PEER_MAC)));
    let expected = NextHop { addr: ip(SERVER), ids: vec![7], state: sends_to(PEER_MAC) };
    assert_eq!(effects.changes, [expected]);
}

#[test]
fn nothing_is_said_or_asked_before_the_first_look_is_over() {
    let now = Instant::now();
    let mut rig = Rig { resolver: Resolver::new(now), now };
    let effects = rig.add(target(1, SERVER));
    assert_eq!(effects.requests, [Request::Dump(Dump::Links)]);
    let effects = rig.look(&[link(ETH)], &[reachable(SERVER, PEER_MAC)], true);
    assert_eq!(effects.requests, [Request::Route(ip(SERVER))]);
    assert_eq!(only_state(rig.answer(SERVER, on_link())), Some(sends_to(PEER_MAC)));
}

#[test]
fn a_server_behind_a_gateway_gets_the_gateways_address() {
    let mut rig = Rig::one_link();
    rig.add(target(1, FAR));
    assert_eq!(rig.answer(FAR, via(GATEWAY)).requests, [care(GATEWAY, Upkeep::CreateManaged)]);
    assert_eq!(rig.sees(reachable(GATEWAY, PEER_MAC)), Some(sends_to(PEER_MAC)));
}

#[test]
fn servers_that_share_an_address_share_the_question_and_the_answer() {
    let mut rig = Rig::one_link();
    assert_eq!(rig.add(target(1, SERVER)).requests.len(), 1);
    assert_eq!(rig.add(target(2, SERVER)).requests, []);
    rig.answer(SERVER, on_link());
    let effects = rig.step(Event::Neighbour(reachable(SERVER, PEER_MAC)));
    assert_eq!(effects.changes[0].ids, [1, 2]);
    let effects = rig.add(target(3, SERVER));
    assert_eq!(effects.requests, []);
    assert_eq!(effects.changes[0].ids, [3], "only the newcomer needs to be told");
}

#[test]
fn a_gateway_that_changes_its_mac_changes_all_servers_behind_it() {
    let mut rig = Rig::with(&[link(ETH)], &[reachable(GATEWAY, PEER_MAC)]);
    for (id, addr) in [(1, "192.0.2.1"), (2, "192.0.2.2")] {
        rig.add(target(id, addr));
        rig.answer(addr, via(GATEWAY));
    }
    let effects = rig.step(Event::Neighbour(reachable(GATEWAY, NEW_MAC)));
    assert_eq!(effects.changes.len(), 2);
    assert!(effects.changes.iter().all(|change| change.state == sends_to(NEW_MAC)));
}

#[test]
fn a_neighbour_under_renewal_stays_usable() {
    let mut rig = Rig::resolved();
    for nud in [Nud::Stale, Nud::Delay, Nud::Probe, Nud::Reachable] {
        assert_eq!(rig.sees(neighbour(SERVER, nud, Some(PEER_MAC))), None);
    }
    assert_eq!(rig.sees(neighbour(SERVER, Nud::Incomplete, None)), None, "kept until it fails");
    assert_eq!(rig.sees(neighbour(SERVER, Nud::Stale, Some(NEW_MAC))), Some(sends_to(NEW_MAC)));
}

#[test]
fn a_failed_neighbour_stays_failed_until_it_answers() {
    let mut rig = Rig::resolved();
    let failed = neighbour(SERVER, Nud::Failed, None);
    assert_eq!(rig.sees(failed), Some(unresolved(Reason::NeighbourFailed)));
    assert_eq!(rig.sees(neighbour(SERVER, Nud::Incomplete, None)), None, "the kernel's retry is no news");
    assert_eq!(rig.sees(failed), None);
    assert_eq!(rig.sees(reachable(SERVER, PEER_MAC)), Some(sends_to(PEER_MAC)));
}

#[test]
fn a_flushed_neighbour_is_made_again_and_its_address_used_meanwhile() {
    let mut rig = Rig::resolved();
    rig.now += Duration::from_secs(2);
    assert_eq!(rig.step(Event::NeighbourGone(key(SERVER))), Effects::default());
    let effects = rig.after(SETTLE);
    assert_eq!(effects.requests, [care(SERVER, Upkeep::CreateManaged)]);
    assert_eq!(effects.changes, []);
}

#[test]
fn a_neighbour_lost_for_good_is_given_up() {
    let mut rig = Rig::resolved();
    rig.step(Event::NeighbourGone(key(SERVER)));
    assert_eq!(only_state(rig.after(Duration::from_secs(5))), None);
    rig.now += Duration::from_secs(5);
    assert_eq!(only_state(rig.tick()), Some(unresolved(Reason::NeighbourPending)));
}

#[test]
fn a_permanent_neighbour_is_used_and_left_alone() {
    let entry =
        Neighbour { managed: false, ours: false, ..neighbour(SERVER, Nud::Permanent, Some(PEER_MAC)) };
    let mut rig = Rig::with(&[link(ETH)], &[entry]);
    rig.add(target(1, SERVER));
    let effects = rig.answer(SERVER, on_link());
    assert_eq!(effects.requests, []);
    assert_eq!(only_state(effects), Some(sends_to(PEER_MAC)));
    assert_eq!(rig.after(Duration::from_secs(5)).requests, []);
    rig.step(Event::Targets(Change::Set(vec![])));
    assert_eq!(rig.after(Duration::from_secs(5)).requests, []);
}

#[test]
fn an_entry_the_kernel_made_for_itself_becomes_managed() {
    let entry = Neighbour { managed: false, ours: false, ..reachable(SERVER, PEER_MAC) };
    let mut rig = Rig::with(&[link(ETH)], &[entry]);
    rig.add(target(1, SERVER));
    assert_eq!(rig.answer(SERVER, on_link()).requests, [care(SERVER, Upkeep::Manage)]);
}

#[test]
fn an_entry_that_lost_its_management_gets_it_back_without_haste() {
    let mut rig = Rig::resolved();
    let ordinary = Neighbour { managed: false, ..reachable(SERVER, PEER_MAC) };
    rig.step(Event::Neighbour(ordinary));
    assert_eq!(rig.after(SETTLE).requests, [], "asked a moment ago");
    rig.now += Duration::from_secs(1);
    rig.step(Event::Neighbour(ordinary));
    assert_eq!(rig.after(SETTLE).requests, [care(SERVER, Upkeep::Manage)]);
}

#[test]
fn where_managing_is_refused_the_neighbour_is_probed_at_intervals() {
    let mut rig = Rig::one_link();
    rig.add(target(1, SERVER));
    rig.answer(SERVER, on_link());
    let refusal = Event::NeighbourRefused { key: key(SERVER), errno: 95 };
    assert_eq!(rig.step(refusal.clone()).requests, [care(SERVER, Upkeep::Probe)]);
    assert_eq!(rig.step(refusal).requests, [], "a refused probe waits for the next round");
    let probed = Neighbour { managed: false, ours: false, ..reachable(SERVER, PEER_MAC) };
    assert_eq!(rig.sees(probed), Some(sends_to(PEER_MAC)));
    assert_eq!(rig.after(Duration::from_secs(5)).requests, [care(SERVER, Upkeep::Probe)]);
    assert_eq!(rig.after(Duration::from_secs(5)).requests, [care(SERVER, Upkeep::Probe)]);
    assert!(rig.resolver.describe(ip(SERVER)).ends_with("(reachable, probed)"));
}

#[test]
fn an_entry_that_came_into_being_meanwhile_is_no_refusal() {
    let mut rig = Rig::one_link();
    rig.add(target(1, SERVER));
    rig.answer(SERVER, on_link());
    let exists = Event::NeighbourRefused { key: key(SERVER), errno: nix::libc::EEXIST };
    assert_eq!(rig.step(exists).requests, []);
    let permanent =
        Neighbour { managed: false, ours: false, ..neighbour(SERVER, Nud::Permanent, Some(PEER_MAC)) };
    assert_eq!(rig.sees(permanent), Some(sends_to(PEER_MAC)));
    assert_eq!(rig.after(Duration::from_secs(5)).requests, []);
}

#[test]
fn neighbours_nobody_needs_are_released_once_all_routes_are_known() {
    let left_over = reachable("10.1.0.99", NEW_MAC);
    let foreign = Neighbour { ours: false, ..reachable("10.1.0.98", NEW_MAC) };
    let mut rig = Rig::with(&[link(ETH)], &[left_over, foreign, reachable(SERVER, PEER_MAC)]);
    assert_eq!(rig.after(Duration::from_secs(5)).requests, [], "no targets were given yet");
    rig.add(target(1, SERVER));
    assert_eq!(rig.after(Duration::from_secs(5)).requests, [], "a route is missing");
    rig.answer(SERVER, on_link());
    assert_eq!(rig.after(Duration::from_secs(5)).requests, [care("10.1.0.99", Upkeep::Release)]);
}

#[test]
fn an_interface_that_goes_down_takes_its_servers_along_and_brings_them_back() {
    let mut rig = Rig::resolved();
    rig.now += Duration::from_secs(2);
    // In the kernel's order: neighbours first.
    rig.step(Event::NeighbourGone(key(SERVER)));
    let down = rig.step(Event::Link(Link { up: false, carrier: false, ..link(ETH) }));
    assert_eq!(only_state(down), Some(unresolved(Reason::InterfaceDown { ifindex: ETH })));
    let effects = rig.after(SETTLE);
    assert_eq!(effects.requests, [Request::Route(ip(SERVER))], "and nothing for the neighbour");
    assert_eq!(only_state(rig.answer(SERVER, Err(Reason::NoRoute))), Some(unresolved(Reason::NoRoute)));

    rig.now += Duration::from_secs(60);
    rig.step(Event::Link(link(ETH)));
    assert!(rig.after(SETTLE).requests.contains(&Request::Route(ip(SERVER))));
    let effects = rig.answer(SERVER, on_link());
    assert_eq!(effects.requests, [care(SERVER, Upkeep::CreateManaged)]);
    assert_eq!(rig.sees(reachable(SERVER, PEER_MAC)), Some(sends_to(PEER_MAC)));
}

#[test]
fn a_lost_carrier_is_told_apart_and_a_short_loss_costs_no_resolution() {
    let mut rig = Rig::resolved();
    let state = only_state(rig.step(Event::Link(Link { carrier: false, ..link(ETH) })));
    assert_eq!(state, Some(unresolved(Reason::NoCarrier { ifindex: ETH })));
    rig.now += Duration::from_secs(1);
    rig.step(Event::NeighbourGone(key(SERVER)));
    let effects = rig.step(Event::Link(link(ETH)));
    assert_eq!(only_state(effects), Some(sends_to(PEER_MAC)), "until the neighbour fails, if it does");
    assert!(rig.after(SETTLE).requests.contains(&care(SERVER, Upkeep::CreateManaged)));
}

#[test]
fn an_interface_that_vanishes_leaves_nothing_behind_for_the_next_of_its_number() {
    let mut rig = Rig::resolved();
    let gone = rig.step(Event::LinkGone(ETH));
    assert_eq!(only_state(gone), Some(unresolved(Reason::InterfaceDown { ifindex: ETH })));
    rig.now += Duration::from_secs(2);
    rig.step(Event::Link(link(ETH)));
    rig.tick();
    let effects = rig.answer(SERVER, on_link());
    assert_eq!(only_state(effects), None, "pending since the link came back");
    let sentence = rig.resolver.describe(ip(SERVER));
    assert_eq!(sentence, "10.1.0.11 dev l2: the neighbour is being looked for");
}

#[test]
fn a_changed_mac_or_mtu_of_the_interface_is_told() {
    let mut rig = Rig::resolved();
    let effects = rig.step(Event::Link(Link { mac: Some(NEW_MAC), mtu: 9000, ..link(ETH) }));
    let expected = State::Resolved {
        ifindex: ETH,
        source_mac: NEW_MAC,
        dest_mac: PEER_MAC,
        mtu: 9000,
        source: ip(SOURCE),
    };
    assert_eq!(only_state(effects), Some(expected));
}

#[test]
fn an_unchanged_interface_is_no_news() {
    let mut rig = Rig::resolved();
    assert_eq!(rig.step(Event::Link(link(ETH))), Effects::default());
    assert_eq!(rig.after(SETTLE), Effects::default());
}

#[test]
fn the_smaller_of_the_routes_mtu_and_the_interfaces_holds() {
    for (stated, expected) in [(1400, 1400), (9000, 1500)] {
        let mut rig = Rig::resolved();
        rig.step(Event::RoutesChanged(Prefix { addr: ip("10.1.0.0"), len: 24 }));
        rig.after(SETTLE);
        let route = on_link().map(|route| Route { mtu: Some(stated), ..route });
        rig.answer(SERVER, route);
        let sentence = rig.resolver.describe(ip(SERVER));
        assert!(sentence.contains(&format!("mtu {expected} ")), "{sentence}");
    }
}

#[test]
fn an_interface_without_ethernet_is_refused() {
    let mut rig = Rig::with(&[Link { mac: None, ..link(ETH) }], &[]);
    rig.add(target(1, FAR));
    let effects = rig.answer(FAR, via(GATEWAY));
    assert_eq!(effects.requests, []);
    assert_eq!(only_state(effects), Some(unresolved(Reason::NotEthernet { ifindex: ETH })));
}

#[test]
fn vlan_devices_are_told_when_they_change() {
    let vlan = |ifindex, lower, kind, id| Link { vlan: Some(Above { lower, kind, id }), ..link(ifindex) };
    let device = |ifindex, tags| VlanDevice { ifindex, lower: ETH, tags };
    let (outer, inner) = (Tags::one(0x88a8, 5), Tags::one(0x88a8, 5).with_inside(0x8100, 6));
    let inner = inner.expect("two tags");
    let mut rig = Rig::with(&[link(ETH)], &[]);
    assert_eq!(rig.tick().devices, None, "there is none, and that was told");
    let effects = rig.step(Event::Link(vlan(10, ETH, 0x88a8, 5)));
    assert_eq!(effects.devices, Some(vec![device(10, outer)]));
    assert_eq!(rig.step(Event::Link(Link { mtu: 1400, ..vlan(10, ETH, 0x88a8, 5) })).devices, None);
    let effects = rig.step(Event::Link(vlan(11, 10, 0x8100, 6)));
    assert_eq!(effects.devices, Some(vec![device(10, outer), device(11, inner)]));
    assert_eq!(rig.step(Event::Link(vlan(12, 11, 0x8100, 7))).devices, None, "three tags are too many");
    assert_eq!(rig.step(Event::Link(vlan(13, 99, 0x8100, 7))).devices, None, "what is below is not known");
    let effects = rig.step(Event::LinkGone(11));
    assert_eq!(effects.devices, Some(vec![device(10, outer)]));
}

#[test]
fn a_changed_gateway_is_followed() {
    let mut rig = Rig::with(&[link(ETH)], &[reachable(GATEWAY, PEER_MAC), reachable("10.1.0.253", NEW_MAC)]);
    rig.add(target(1, FAR));
    rig.answer(FAR, via(GATEWAY));
    rig.step(Event::RoutesChanged(Prefix { addr: ip("0.0.0.0"), len: 0 }));
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(FAR))]);
    assert_eq!(only_state(rig.answer(FAR, via("10.1.0.253"))), Some(sends_to(NEW_MAC)));
}

#[test]
fn a_server_that_moves_to_another_interface_is_followed() {
    let mut rig = Rig::resolved();
    rig.step(Event::Link(Link { mac: Some(NEW_MAC), ..link(OTHER) }));
    let moved = on_link().map(|route| Route { ifindex: OTHER, ..route });
    rig.step(Event::RoutesChanged(Prefix { addr: ip(SERVER), len: 32 }));
    rig.after(SETTLE);
    assert_eq!(only_state(rig.answer(SERVER, moved)), Some(unresolved(Reason::NeighbourPending)));
    let entry = reachable(SERVER, PEER_MAC);
    let entry = Neighbour { key: NeighbourKey { ifindex: OTHER, ..entry.key }, ..entry };
    assert!(matches!(rig.sees(entry), Some(State::Resolved { ifindex: OTHER, source_mac: NEW_MAC, .. })));
    assert_eq!(rig.sees(reachable(SERVER, NEW_MAC)), None, "the old neighbour does not matter any more");
}

#[test]
fn only_servers_within_a_changed_prefix_are_asked_about_again() {
    let mut rig = Rig::one_link();
    for (id, addr) in [(1, "10.1.0.1"), (2, "10.1.1.1"), (3, "10.2.0.1"), (4, "2001:db8::1")] {
        rig.add(target(id, addr));
        rig.answer(addr, via(GATEWAY));
    }
    rig.step(Event::RoutesChanged(Prefix { addr: ip("10.1.0.0"), len: 16 }));
    rig.step(Event::RoutesChanged(Prefix { addr: ip("10.1.0.0"), len: 24 }));
    assert_eq!(rig.tick().requests, [], "left to settle");
    let asked = rig.after(SETTLE).requests;
    assert_eq!(asked, [Request::Route(ip("10.1.0.1")), Request::Route(ip("10.1.1.1"))]);
}

#[test]
fn a_doubt_raised_during_a_question_causes_another() {
    let mut rig = Rig::resolved();
    let changed = Event::RoutesChanged(Prefix { addr: ip(SERVER), len: 32 });
    rig.step(changed.clone());
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(SERVER))]);
    rig.step(changed);
    assert_eq!(rig.after(SETTLE).requests, [], "one at a time");
    assert_eq!(rig.answer(SERVER, on_link()).requests, [Request::Route(ip(SERVER))]);
    assert_eq!(rig.answer(SERVER, on_link()).requests, []);
}

#[test]
fn an_address_that_moves_is_asked_about() {
    let mut rig = Rig::resolved();
    // The server's address becomes the director's.
    rig.step(Event::AddressChanged { ifindex: OTHER, addr: ip(SERVER) });
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(SERVER))]);
    assert_eq!(only_state(rig.answer(SERVER, Err(Reason::Local))), Some(unresolved(Reason::Local)));
    // And is taken away again.
    rig.step(Event::AddressChanged { ifindex: OTHER, addr: ip(SERVER) });
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(SERVER))]);
    assert_eq!(
        only_state(rig.answer(SERVER, on_link())),
        Some(sends_to(PEER_MAC)),
        "its entry is still there"
    );
}

#[test]
fn a_renumbered_director_sends_from_its_new_address() {
    let mut rig = Rig::resolved();
    rig.step(Event::AddressChanged { ifindex: ETH, addr: ip(SOURCE) });
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(SERVER))]);
    let renumbered = on_link().map(|route| Route { source: Some(ip("10.1.0.5")), ..route });
    let state = only_state(rig.answer(SERVER, renumbered));
    assert!(matches!(state, Some(State::Resolved { source, .. }) if source == ip("10.1.0.5")));
}

#[test]
fn rules_and_next_hop_objects_put_everything_in_doubt() {
    let mut rig = Rig::resolved();
    rig.step(Event::RoutingChanged);
    assert_eq!(rig.after(SETTLE).requests, [Request::Route(ip(SERVER))]);
}

#[test]
fn every_half_minute_everything_is_looked_at_and_missed_changes_heal() {
    let mut rig = Rig::resolved();
    rig.after(Duration::from_secs(15));
    let requests = rig.after(Duration::from_secs(15)).requests;
    assert!(requests.contains(&Request::Dump(Dump::Links)));
    let effects = rig.look(&[Link { mtu: 1400, ..link(ETH) }], &[reachable(SERVER, NEW_MAC)], true);
    assert_eq!(effects.requests, [Request::Route(ip(SERVER))]);
    let sentence = rig.resolver.describe(ip(SERVER));
    assert!(sentence.contains("lladdr 02:00:00:00:00:03 ") && sentence.contains("mtu 1400"), "{sentence}");
}

#[test]
fn what_a_complete_dump_lacks_has_gone_and_what_an_interrupted_one_lacks_has_not() {
    for complete in [false, true] {
        let mut rig = Rig::resolved();
        rig.after(Duration::from_secs(30));
        rig.look(&[], &[], complete);
        let has_gone = rig.resolver.describe(ip(SERVER)).contains("dev gone");
        assert_eq!(has_gone, complete);
    }
}

#[test]
fn an_interrupted_look_is_repeated_soon() {
    let mut rig = Rig::resolved();
    rig.after(Duration::from_secs(30));
    rig.look(&[], &[], false);
    assert!(rig.after(Duration::from_secs(1)).requests.contains(&Request::Dump(Dump::Links)));
}

#[test]
fn an_overflow_causes_one_full_look_a_second_at_most() {
    let mut rig = Rig::resolved();
    rig.now += Duration::from_secs(2);
    assert_eq!(rig.step(Event::Overflow).requests, [Request::Dump(Dump::Links)]);
    assert_eq!(rig.step(Event::Overflow).requests, []);
    rig.look(&[link(ETH)], &[reachable(SERVER, PEER_MAC)], true);
    assert_eq!(rig.tick().requests, []);
    assert_eq!(rig.after(Duration::from_secs(1)).requests, [Request::Dump(Dump::Links)]);
}

#[test]
fn an_answer_from_before_a_loss_is_not_trusted() {
    let mut rig = Rig::one_link();
    rig.add(target(1, SERVER));
    rig.now += Duration::from_secs(2);
    rig.step(Event::Overflow);
    assert_eq!(rig.look(&[link(ETH)], &[], true).requests, [], "the question is still under way");
    assert!(rig.answer(SERVER, Err(Reason::NoRoute)).requests.contains(&Request::Route(ip(SERVER))));
}

#[test]
fn a_lost_dump_is_asked_for_again() {
    let now = Instant::now();
    let mut rig = Rig { resolver: Resolver::new(now), now };
    rig.tick();
    assert_eq!(rig.after(Duration::from_secs(9)).requests, []);
    assert_eq!(rig.after(Duration::from_secs(1)).requests, [Request::Dump(Dump::Links)]);
}

#[test]
fn a_new_set_keeps_what_it_shares_with_the_old() {
    let mut rig = Rig::resolved();
    let effects = rig.step(Event::Targets(Change::Set(vec![target(1, SERVER), target(2, FAR)])));
    assert_eq!(effects.requests, [Request::Route(ip(FAR))]);
    assert_eq!(effects.changes, []);
}

#[test]
fn a_removed_server_is_forgotten() {
    let mut rig = Rig::resolved();
    rig.step(Event::Targets(Change::Remove(vec![1])));
    assert_eq!(rig.step(Event::Neighbour(reachable(SERVER, NEW_MAC))).changes, []);
    assert_eq!(rig.resolver.describe(ip(SERVER)), "10.1.0.11 is not the address of any server");
    assert_eq!(rig.answer(SERVER, on_link()).changes, [], "an answer that comes late");
}

#[test]
fn a_server_that_changes_its_address_is_asked_about_under_the_new_one() {
    let mut rig = Rig::resolved();
    let effects = rig.add(target(1, "10.1.0.12"));
    assert_eq!(effects.requests, [Request::Route(ip("10.1.0.12"))]);
    assert_eq!(rig.resolver.describe(ip(SERVER)), "10.1.0.11 is not the address of any server");
}

#[test]
fn ipv6_is_resolved_likewise() {
    let mut rig = Rig::one_link();
    rig.add(target(1, "2001:db8::11"));
    let route = Route { ifindex: ETH, gateway: None, mtu: None, source: None };
    rig.answer("2001:db8::11", Ok(route));
    let state = rig.sees(reachable("2001:db8::11", PEER_MAC));
    assert!(matches!(state, Some(State::Resolved { source, .. }) if source == ip("::")));
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let mut rig = Rig::one_link();
    rig.add(target(1, FAR));
    assert_eq!(rig.answer(FAR, via("fe80::1")).requests, [care("fe80::1", Upkeep::CreateManaged)]);
    assert_eq!(rig.sees(reachable("fe80::1", PEER_MAC)), Some(sends_to(PEER_MAC)));
}

#[test]
fn sentences_for_operators() {
    let mut rig = Rig::with(&[link(ETH)], &[reachable(GATEWAY, PEER_MAC)]);
    rig.add(target(1, FAR));
    let mut expect = |answer, sentence: &str| {
        if let Some(answer) = answer {
            rig.answer(FAR, answer);
        }
        assert_eq!(rig.resolver.describe(ip(FAR)), sentence);
    };
    expect(None, "192.0.2.11: the kernel has not been asked for a route yet");
    expect(Some(Err(Reason::Local)), "192.0.2.11: it is the director's own address");
    expect(
        Some(via(GATEWAY)),
        "192.0.2.11 via 10.1.0.254 dev l2 lladdr 02:00:00:00:00:02 src 10.1.0.1 mtu 1500 (reachable, managed)",
    );
    expect(Some(via("10.1.0.253")), "192.0.2.11 via 10.1.0.253 dev l2: the neighbour is being looked for");
}

#[test]
fn tens_of_thousands_of_servers_are_no_burden() {
    let addr = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0A40_0000 + n));
    let targets: Vec<_> = (0..50_000).map(|id| Target { id, addr: addr(id) }).collect();
    let mut rig = Rig::with(&[link(ETH)], &[reachable(GATEWAY, PEER_MAC)]);
    assert_eq!(rig.step(Event::Targets(Change::Set(targets))).requests.len(), 50_000);
    // A change while every question is under way: each is asked again when it has been answered.
    rig.step(Event::RoutingChanged);
    rig.after(SETTLE);
    let mut answer_all = || {
        let effects = (0..50_000).map(|n| {
            let effects = rig.step(Event::RouteAnswer { addr: addr(n), answer: via(GATEWAY) });
            (effects.changes.len(), effects.requests.len())
        });
        effects.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    assert_eq!(answer_all(), (50_000, 50_000), "changes and questions");
    assert_eq!(answer_all(), (0, 0), "changes and questions");
    assert_eq!(rig.step(Event::Neighbour(reachable(GATEWAY, NEW_MAC))).changes.len(), 50_000);
}

#[test]
fn a_prefix_spans_its_addresses() {
    let range = |addr: &str, len| Prefix { addr: ip(addr), len }.range();
    assert_eq!(range("10.1.2.3", 8), ip("10.0.0.0")..=ip("10.255.255.255"));
    assert_eq!(range("10.1.2.3", 32), ip("10.1.2.3")..=ip("10.1.2.3"));
    assert_eq!(range("0.0.0.0", 0), ip("0.0.0.0")..=ip("255.255.255.255"));
    assert_eq!(range("2001:db8::1", 64), ip("2001:db8::")..=ip("2001:db8::ffff:ffff:ffff:ffff"));
    assert_eq!(range("::", 0).end(), &ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
}

#[test]
fn what_a_router_says_of_the_way_holds_for_ten_minutes() {
    let says = |mtu| Event::PathMtu { addr: ip(SERVER), mtu };
    let with = |mtu| Some(with_mtu(sends_to(PEER_MAC), mtu));
    let mut rig = Rig::resolved();
    assert_eq!(only_state(rig.step(says(1300))), with(1300));
    assert_eq!(only_state(rig.step(says(1400))), None, "another way may take more, not this one");
    assert_eq!(only_state(rig.step(says(68))), with(552), "nobody makes the director send crumbs");
    assert_eq!(only_state(rig.after(Duration::from_secs(601))), with(1500));
    assert_eq!(rig.step(Event::PathMtu { addr: ip(FAR), mtu: 1300 }), Effects::default(), "no server's");
}

fn with_mtu(state: State, new: u32) -> State {
    match state {
        State::Resolved { ifindex, source_mac, dest_mac, source, .. } => {
            State::Resolved { ifindex, source_mac, dest_mac, mtu: new, source }
        }
        unresolved => unresolved,
    }
}
