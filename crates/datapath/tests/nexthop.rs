//! Next hops against a real kernel, in network namespaces. Needs root and the `ip` and `ping` commands.
//!
//! ```text
//!  director                     peer
//!  l1  10.77.1.1/24 ─── veth ─── p1  10.77.1.11/24 10.77.1.12/24, forwards to 192.0.2.0/24 and others
//!      fd77:1::1/64                  fd77:1::11/64
//!  l2  10.77.2.1/24 ─── veth ─── p2  10.77.2.11/24
//! ```

use std::{
    collections::HashMap,
    fs::File,
    net::IpAddr,
    process::Command as Process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};
use xlvs_datapath::nexthop::{self, Change, Command, Mac, News, Reason, State, Target};

const SERVER: &str = "10.77.1.11";
const OTHER_GATEWAY: &str = "10.77.2.11";
const FAR: &str = "192.0.2.11";
const SERVER_V6: &str = "fd77:1::11";

const L1: &str = "02:77:00:00:00:01";
const P1: &str = "02:77:00:00:00:11";
const L2: &str = "02:77:00:00:00:02";
const P2: &str = "02:77:00:00:00:22";
const NEW: &str = "02:77:00:00:00:99";

/// Time for a change to arrive that needs no answer from anybody.
const SOON: Duration = Duration::from_secs(2);
/// Time for a neighbour to be declared failed: three requests, a second apart, and some.
const FAILING: Duration = Duration::from_secs(8);

#[test]
fn a_neighbour_is_resolved_at_its_own_address() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    let sentence = following.describe(SERVER);
    let start = format!("{SERVER} dev l1 lladdr {P1} src 10.77.1.1 mtu 1500 (");
    assert!(sentence.starts_with(&start) && sentence.contains("managed"), "{sentence}");
}

#[test]
fn a_far_server_is_resolved_at_its_gateway() {
    let lab = Lab::new();
    lab.director("route add 192.0.2.0/24 via 10.77.1.12 mtu 1400");
    let mut following = lab.follow(&[target(1, FAR)]);
    following.expect(
        1,
        &|state| resolved_at(L1, P1, "10.77.1.1")(state) && mtu_of(state) == Some(1400),
        SOON,
    );
}

#[test]
fn two_servers_have_two_next_hops_and_a_changed_route_moves_one() {
    let lab = Lab::new();
    lab.director("route add 192.0.2.11/32 via 10.77.1.12");
    lab.director("route add 192.0.2.12/32 via 10.77.2.11");
    let mut following = lab.follow(&[target(1, FAR), target(2, "192.0.2.12")]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    following.expect(2, &resolved_at(L2, P2, "10.77.2.1"), SOON);
    lab.director("route replace 192.0.2.11/32 via 10.77.2.11");
    following.expect(1, &resolved_at(L2, P2, "10.77.2.1"), SOON);
    assert!(following.describe(FAR).contains(&format!(" via {OTHER_GATEWAY} dev l2 ")));
}

#[test]
fn a_server_that_changes_its_mac_is_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.peer(&format!("link set p1 address {NEW}"));
    // The director's kernel refuses a second MAC within `locktime`, a second: the peer must speak again then.
    let deadline = Instant::now() + SOON + SOON;
    while !following.holds(1, &resolved_at(L1, NEW, "10.77.1.1"), Duration::from_millis(100)) {
        assert!(Instant::now() < deadline, "still {:?}", following.latest.get(&1));
        lab.peer_speaks("10.77.1.1");
    }
}

#[test]
fn a_server_that_stops_answering_fails_and_comes_back() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, "10.77.1.13")]);
    following.expect(1, &unresolved(Reason::NeighbourPending), SOON);
    following.expect(1, &unresolved(Reason::NeighbourFailed), FAILING);
    lab.peer("addr add 10.77.1.13/24 dev p1");
    // The kernel tries a managed neighbour again every five seconds.
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), FAILING);
}

#[test]
fn an_interface_that_goes_down_and_up_is_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director("link set l1 down");
    following.expect(1, &is_unresolved, SOON);
    following.expect(1, &unresolved(Reason::NoRoute), SOON);
    lab.director("link set l1 up");
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
}

#[test]
fn a_peer_that_is_unplugged_is_told_by_the_carrier() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.peer("link set p1 down");
    let is_no_carrier =
        |state: &State| matches!(state, State::Unresolved { reason: Reason::NoCarrier { .. } });
    following.expect(1, &is_no_carrier, SOON);
    lab.peer("link set p1 up");
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
}

#[test]
fn a_deleted_interface_and_its_successor_are_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director("link del l1");
    following.expect(1, &unresolved(Reason::NoRoute), SOON);
    lab.connect("l1", L1, "10.77.1.1/24", "p1", NEW, "10.77.1.11/24");
    following.expect(1, &resolved_at(L1, NEW, "10.77.1.1"), SOON);
}

#[test]
fn a_changed_interface_mac_and_mtu_are_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director("link set l1 mtu 1300");
    following.expect(1, &|state| mtu_of(state) == Some(1300), SOON);
    lab.director(&format!("link set l1 address {NEW}"));
    following.expect(1, &resolved_at(NEW, P1, "10.77.1.1"), SOON);
}

#[test]
fn addresses_without_a_way_are_told_apart() {
    let lab = Lab::new();
    lab.director("route add blackhole 198.51.100.0/26");
    lab.director("route add unreachable 198.51.100.64/26");
    lab.director("route add prohibit 198.51.100.128/26");
    let far = [("203.0.113.1", Reason::NoRoute), ("198.51.100.1", Reason::Blocked)];
    let blocked = [("198.51.100.65", Reason::Blocked), ("198.51.100.129", Reason::Blocked)];
    let odd = [("10.77.1.255", Reason::NotAHost), ("10.77.2.1", Reason::Local), ("fd77:1::1", Reason::Local)];
    let cases: Vec<_> = (1..).zip(far.into_iter().chain(blocked).chain(odd)).collect();
    let targets: Vec<_> = cases.iter().map(|(id, (text, _))| target(*id, text)).collect();
    let mut following = lab.follow(&targets);
    for (id, (_, reason)) in cases {
        following.expect(id, &unresolved(reason), SOON);
    }
}

#[test]
fn an_address_that_becomes_the_directors_own_and_back_is_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director("addr add 10.77.1.11/32 dev l2");
    following.expect(1, &unresolved(Reason::Local), SOON);
    lab.director("addr del 10.77.1.11/32 dev l2");
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
}

#[test]
fn a_renumbered_director_is_followed() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director("addr add 10.77.1.2/24 dev l1");
    lab.director("addr del 10.77.1.1/24 dev l1");
    lab.director("addr replace 10.77.1.2/24 dev l1");
    following.expect(1, &resolved_at(L1, P1, "10.77.1.2"), SOON);
}

#[test]
fn ipv6_servers_near_and_far_are_resolved() {
    let lab = Lab::new();
    lab.director("-6 route add 2001:db8::/32 via fd77:1::11");
    let mut following = lab.follow(&[target(1, SERVER_V6), target(2, "2001:db8::5")]);
    following.expect(1, &resolved_at(L1, P1, "fd77:1::1"), SOON);
    following.expect(2, &resolved_at(L1, P1, "fd77:1::1"), SOON);
    lab.director("-6 route del 2001:db8::/32");
    following.expect(2, &unresolved(Reason::NoRoute), SOON);
}

#[test]
fn an_ipv4_route_through_an_ipv6_gateway_is_resolved() {
    let lab = Lab::new();
    lab.director("route add 192.0.2.0/24 via inet6 fd77:1::11 dev l1");
    let mut following = lab.follow(&[target(1, FAR)]);
    following.expect(
        1,
        &|state| matches!(state, State::Resolved { dest_mac, .. } if *dest_mac == mac(P1)),
        SOON,
    );
}

#[test]
fn a_permanent_neighbour_is_used_as_it_is() {
    let lab = Lab::new();
    lab.director(&format!("neigh add {SERVER} lladdr {NEW} dev l1 nud permanent"));
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, NEW, "10.77.1.1"), SOON);
    lab.director(&format!("neigh replace {SERVER} lladdr {P1} dev l1 nud permanent"));
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    let entry = lab.director(&format!("neigh show {SERVER}"));
    assert!(entry.contains("PERMANENT") && !entry.contains("managed"), "{entry}");
}

#[test]
fn a_flushed_neighbour_becomes_managed_again_and_a_released_one_ordinary() {
    let lab = Lab::new();
    let mut following = lab.follow(&[target(1, SERVER)]);
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    lab.director(&format!("neigh del {SERVER} dev l1"));
    // At once, or, if the entry was made less than a second ago, in the next round of five seconds.
    lab.await_neighbour(SERVER, |entry| entry.contains("managed") && entry.contains(P1));
    following.send(Change::Set(vec![]));
    lab.await_neighbour(SERVER, |entry| !entry.contains("managed"));
}

#[test]
fn targets_come_and_go_while_it_runs() {
    let lab = Lab::new();
    let mut following = lab.follow(&[]);
    following.send(Change::Add(vec![target(1, SERVER)]));
    following.expect(1, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    following.send(Change::Add(vec![target(2, SERVER)]));
    following.expect(2, &resolved_at(L1, P1, "10.77.1.1"), SOON);
    following.send(Change::Remove(vec![1, 2]));
    assert_eq!(following.describe(SERVER), "10.77.1.11 is not the address of any server");
}

#[test]
fn more_neighbours_than_the_kernel_keeps_by_itself_are_resolved_and_kept() {
    // Its limit, `gc_thresh3`, is 1024 unless it was raised.
    let lab = Lab::new();
    lab.director("addr add 10.88.255.1/16 dev l1");
    lab.peer("route add local 10.88.0.0/20 dev lo");
    let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0A58_0100 + n));
    let targets: Vec<_> = (0..3000).map(|id| Target { id, addr: address(id) }).collect();
    let mut following = lab.follow(&targets);
    for id in 0..3000 {
        following.expect(id, &resolved_at(L1, P1, "10.88.255.1"), Duration::from_secs(30));
    }
    let managed = lab.director("neigh show dev l1").matches("managed").count();
    assert!(managed >= 3000, "only {managed}");
}

#[test]
fn twenty_thousand_servers_behind_a_gateway_are_resolved() {
    let lab = Lab::new();
    lab.director("route add 100.64.0.0/10 via 10.77.1.12");
    let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x6440_0000 + n));
    let targets: Vec<_> = (0..20_000).map(|id| Target { id, addr: address(id) }).collect();
    let mut following = lab.follow(&targets);
    for id in 0..20_000 {
        following.expect(id, &resolved_at(L1, P1, "10.77.1.1"), Duration::from_secs(30));
    }
    // All questions again, from one change; a flood of notifications is on its way with it.
    lab.director("route replace 100.64.0.0/10 via 10.77.2.11");
    for id in 0..20_000 {
        following.expect(id, &resolved_at(L2, P2, "10.77.2.1"), Duration::from_secs(30));
    }
}

// What is expected.

fn target(id: u32, text: &str) -> Target {
    Target { id, addr: addr(text) }
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

fn mac(text: &str) -> Mac {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a hexadecimal byte")).collect();
    bytes.try_into().expect("six bytes")
}

fn resolved_at(own: &str, peer: &str, from: &str) -> impl Fn(&State) -> bool + use<> {
    let (own, peer, from) = (mac(own), mac(peer), addr(from));
    move |state| match state {
        State::Resolved { source_mac, dest_mac, source, .. } => {
            (*source_mac, *dest_mac, *source) == (own, peer, from)
        }
        State::Unresolved { .. } => false,
    }
}

fn unresolved(expected: Reason) -> impl Fn(&State) -> bool {
    move |state| *state == State::Unresolved { reason: expected }
}

fn is_unresolved(state: &State) -> bool {
    matches!(state, State::Unresolved { .. })
}

fn mtu_of(state: &State) -> Option<u32> {
    match state {
        State::Resolved { mtu, .. } => Some(*mtu),
        State::Unresolved { .. } => None,
    }
}

// A resolver at work.

/// A running resolver, and what it has said last about each server.
struct Following {
    commands: mpsc::Sender<Command>,
    events: mpsc::UnboundedReceiver<News>,
    latest: HashMap<u32, State>,
}

impl Following {
    fn send(&self, change: Change) {
        self.commands.blocking_send(Command::Targets(change)).expect("the resolver runs");
    }

    fn describe(&self, text: &str) -> String {
        let (reply, sentence) = oneshot::channel();
        let command = Command::Describe { addr: addr(text), reply };
        self.commands.blocking_send(command).expect("the resolver runs");
        sentence.blocking_recv().expect("an answer")
    }

    #[track_caller]
    fn expect(&mut self, id: u32, test: &dyn Fn(&State) -> bool, within: Duration) {
        assert!(self.holds(id, test, within), "server {id} is still {:?}", self.latest.get(&id));
    }

    /// Whether `test` comes to hold for a server in time. Intermediate states count: what comes after them
    /// stays to be read.
    fn holds(&mut self, id: u32, test: &dyn Fn(&State) -> bool, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !self.latest.get(&id).is_some_and(test) {
            match self.events.try_recv() {
                Ok(News::Devices(_)) => {}
                Ok(News::NextHop(event)) => self.latest.extend(event.ids.iter().map(|id| (*id, event.state))),
                Err(TryRecvError::Disconnected) => panic!("the resolver has ended"),
                Err(TryRecvError::Empty) if Instant::now() > deadline => return false,
                Err(TryRecvError::Empty) => thread::sleep(Duration::from_millis(5)),
            }
        }
        true
    }
}

// The namespaces.

static LABS: AtomicU32 = AtomicU32::new(0);

/// The director and its peer; gone when dropped.
struct Lab {
    director: String,
    peer: String,
}

impl Lab {
    fn new() -> Self {
        let root = nix::unistd::geteuid().is_root();
        assert!(root, "run as root: this test makes network namespaces");
        let name = format!("xlvs-t{}-nh{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { director: format!("{name}-d"), peer: format!("{name}-p") };
        for namespace in [&lab.director, &lab.peer] {
            ip(&format!("netns add {namespace}"));
            // Duplicate address detection keeps an interface from asking for neighbours for a second or two.
            ip(&format!("netns exec {namespace} sysctl -qw net.ipv6.conf.default.accept_dad=0"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        lab.connect("l1", L1, "10.77.1.1/24", "p1", P1, "10.77.1.11/24");
        lab.connect("l2", L2, "10.77.2.1/24", "p2", P2, "10.77.2.11/24");
        lab.peer("addr add 10.77.1.12/24 dev p1");
        lab.director("addr add fd77:1::1/64 dev l1 nodad");
        lab.peer("addr add fd77:1::11/64 dev p1 nodad");
        lab
    }

    /// A cable with an interface at each end.
    fn connect(&self, link: &str, own: &str, own_addr: &str, peer_link: &str, peer: &str, peer_addr: &str) {
        let far_end = format!("peer name {peer_link} address {peer} netns {}", self.peer);
        self.director(&format!("link add dev {link} address {own} type veth {far_end}"));
        self.director(&format!("addr add {own_addr} dev {link}"));
        self.peer(&format!("addr add {peer_addr} dev {peer_link}"));
        self.peer(&format!("link set {peer_link} up"));
        self.director(&format!("link set {link} up"));
    }

    fn director(&self, command: &str) -> String {
        ip(&format!("-n {} {command}", self.director))
    }

    fn peer(&self, command: &str) -> String {
        ip(&format!("-n {} {command}", self.peer))
    }

    /// Makes the peer ask for, and so show itself to, an address; whether it is answered does not matter.
    fn peer_speaks(&self, to: &str) {
        self.peer("neigh flush dev p1");
        let command = format!("netns exec {} ping -c1 -W1 {to}", self.peer);
        let run = Process::new("ip").args(command.split(' ')).output();
        drop(run.expect("run ip netns exec ping"));
    }

    #[track_caller]
    fn await_neighbour(&self, text: &str, test: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + FAILING;
        loop {
            let entry = self.director(&format!("neigh show {text}"));
            if test(&entry) {
                return;
            }
            assert!(Instant::now() < deadline, "still: {entry}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a resolver in the director's namespace.
    fn follow(&self, targets: &[Target]) -> Following {
        let namespace = File::open(format!("/run/netns/{}", self.director)).expect("open the namespace");
        let (commands, commands_rx) = mpsc::channel(8);
        let (events_tx, events) = mpsc::unbounded_channel();
        // It ends by itself when `commands` is dropped.
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a Tokio runtime").block_on(async {
                let resolver = nexthop::run(commands_rx, events_tx).expect("open the resolver's socket");
                resolver.await.expect("resolve next hops");
            });
        });
        let following = Following { commands, events, latest: HashMap::new() };
        following.send(Change::Set(targets.to_vec()));
        following
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.director, &self.peer] {
            // Nothing to be done if it fails, and a panic here would hide the test's own.
            drop(Process::new("ip").args(["netns", "del", namespace]).output());
        }
    }
}

#[track_caller]
fn ip(command: &str) -> String {
    let output = Process::new("ip").args(command.split_whitespace()).output().expect("run ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
