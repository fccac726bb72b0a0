//! The tunnel end in the kernel does with random frames what the same code does on the host: verdict, bytes and counters. Needs root
//! and the eBPF object.

use std::cell::RefCell;

use aya::Ebpf;
use aya::maps::{Map, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use xlvs_core::checksum::Sum;
use xlvs_core::packet::Frame;
use xlvs_core::tunnel_end::{Fate, Outcome, TunnelEnd, unwrap};
use xlvs_core::wire::AddrV6;
use xlvs_realserver::setting::TunnelSetup;
use xlvs_realserver::tunnel;

const GUE_PORT: u16 = 6080;
/// What `XDP_DROP` and `XDP_PASS` are.
const ACTIONS: [u32; 2] = [1, 2];

/// Addresses that mean something to the end, and others.
const V4: [[u8; 4]; 4] = [[10, 0, 0, 100], [10, 0, 0, 101], [10, 1, 0, 254], [10, 1, 1, 254]];

fn v6(last: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, last]
}

fn setup(named: bool) -> TunnelSetup {
    let directors: &[&str] = if named { &["10.1.0.0/24", "fd00::1fe/128"] } else { &[] };
    TunnelSetup {
        device: "e0".into(),
        vips: vec!["10.0.0.100".parse().unwrap(), "fd00::100".parse().unwrap()],
        directors: directors.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        gue_port: GUE_PORT,
    }
}

/// The same end on the host.
struct OnHost {
    setup: TunnelSetup,
    counted: RefCell<[u64; Outcome::COUNT]>,
}

fn ip(addr: AddrV6) -> std::net::IpAddr {
    std::net::Ipv6Addr::from(addr.bytes()).to_canonical()
}

impl TunnelEnd for OnHost {
    fn is_vip(&self, addr: AddrV6) -> bool {
        self.setup.vips.contains(&ip(addr))
    }
    fn is_director(&self, addr: AddrV6) -> bool {
        let directors: &[IpNet] = &self.setup.directors;
        directors.is_empty() || directors.iter().any(|prefix| prefix.contains(&ip(addr)))
    }
    fn gue_port(&self) -> [u8; 2] {
        GUE_PORT.to_be_bytes()
    }
    fn count(&self, outcome: Outcome) {
        self.counted.borrow_mut()[outcome as usize] += 1;
    }
}

/// A frame, as a few choices.
#[derive(Clone, Debug)]
struct Choices {
    outer_v6: bool,
    inner_v6: bool,
    kind: u8,
    outer_src: u8,
    inner_dst: u8,
    ecn: (u8, u8),
    payload: u8,
    /// A byte of the frame that is made something else, and where the frame is cut.
    spoilt: Option<(u8, u8)>,
    cut: Option<u8>,
}

fn choices() -> impl Strategy<Value = Choices> {
    let spoilt = proptest::option::weighted(0.3, any::<(u8, u8)>());
    let cut = proptest::option::weighted(0.2, 14u8..140);
    (any::<(bool, bool)>(), 0u8..7, 0u8..4, 0u8..4, (0u8..4, 0u8..4), 0u8..40, spoilt, cut).prop_map(
        |((outer_v6, inner_v6), kind, outer_src, inner_dst, ecn, payload, spoilt, cut)| Choices {
            outer_v6,
            inner_v6,
            kind,
            outer_src,
            inner_dst,
            ecn,
            payload,
            spoilt,
            cut,
        },
    )
}

fn packet(v6_family: bool, from: u8, to: u8, protocol: u8, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    if v6_family {
        let [high, low] = length.to_be_bytes();
        let head = [0x60, ecn << 4, 0, 0, high, low, protocol, 64];
        // fd00::100 is a VIP, fd00::1fe a director.
        let last = |n: u8| v6(if n == 2 { 0xfe } else { n });
        return [&head[..], &last(from), &last(to), payload].concat();
    }
    let [high, low] = (20 + length).to_be_bytes();
    let mut bytes = vec![0x45, ecn, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend(V4[from as usize].iter().chain(&V4[to as usize]));
    let sum = bytes.chunks_exact(2).fold(Sum::ZERO, |sum, pair| sum.add16([pair[0], pair[1]]));
    bytes[10..12].copy_from_slice(&sum.checksum());
    [&bytes[..], payload].concat()
}

fn frame(choices: &Choices) -> Vec<u8> {
    let Choices { outer_v6, inner_v6, kind, outer_src, inner_dst, ecn, payload, .. } = *choices;
    let inside = packet(inner_v6, 3, inner_dst, 17, ecn.1, &vec![7; payload as usize]);
    let number = if inner_v6 { 41 } else { 4 };
    let ethertype: u16 = if inner_v6 { 0x86dd } else { 0x0800 };
    let gre = |flags: u8, extra: &[u8]| [&[flags, 0][..], &ethertype.to_be_bytes(), extra, &inside].concat();
    let gue = |port: u16| {
        let ports =
            [[0x9c, 0x40], port.to_be_bytes(), (12 + inside.len() as u16).to_be_bytes(), [0, 0]].concat();
        [&ports[..], &[0, number, 0, 0], &inside].concat()
    };
    let (protocol, payload) = match kind {
        0 | 1 => (number, inside),
        2 => (47, gre(0, &[])),
        3 => (47, gre(0x80, &[1, 2, 0, 0])),
        4 => (47, gre(0x20, &[0, 0, 0, 9])),
        5 => (17, gue(GUE_PORT)),
        _ => (17, gue(GUE_PORT + 1)),
    };
    let outer = packet(outer_v6, outer_src, 3, protocol, ecn.0, &payload);
    let ethertype: [u8; 2] = if outer_v6 { [0x86, 0xdd] } else { [8, 0] };
    let mut frame = [&[2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 0xfe][..], &ethertype, &outer].concat();
    if let Some((at, value)) = choices.spoilt {
        let at = at as usize % frame.len();
        frame[at] = value;
    }
    frame.truncate(choices.cut.map_or(usize::MAX, usize::from));
    frame
}

fn on_host(setup: &TunnelSetup, frame: &[u8]) -> (u32, Vec<u8>, [u64; Outcome::COUNT]) {
    let end = OnHost { setup: setup.clone(), counted: RefCell::default() };
    let mut buffer = [&[0; Frame::HEADROOM], frame].concat();
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
    let fate = unwrap(&mut packet, &end);
    (ACTIONS[usize::from(fate == Fate::Pass)], packet.bytes().to_vec(), end.counted.into_inner())
}

fn in_kernel(ebpf: &mut Ebpf, frame: &[u8]) -> (u32, Vec<u8>) {
    let program: &mut Xdp = ebpf.program_mut(tunnel::NAME).expect("it is there").try_into().expect("XDP");
    let mut out = vec![0; 2048];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options).expect("the program runs");
    let length = result.data_size_out as usize;
    out.truncate(length);
    (result.return_value, out)
}

fn counters(ebpf: &Ebpf) -> [u64; Outcome::COUNT] {
    let map: &Map = ebpf.map("OUTCOMES").expect("it is there");
    let counters = PerCpuArray::<_, u64>::try_from(map).expect("an array");
    std::array::from_fn(|outcome| counters.get(&(outcome as u32), 0).expect("a counter").iter().sum())
}

#[test]
fn the_kernel_unwraps_as_the_host_does() {
    for named in [false, true] {
        let setup = setup(named);
        let ebpf = RefCell::new(tunnel::load(&setup).expect("the tunnel end loads"));
        let expected = RefCell::new([0; Outcome::COUNT]);
        let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
        // The same frames each time: some outcomes are so rare that other frames might miss them.
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
            .run(&choices(), |choices| {
                let frame = frame(&choices);
                let (action, bytes, counted) = on_host(&setup, &frame);
                let (kernel_action, kernel_bytes) = in_kernel(&mut ebpf.borrow_mut(), &frame);
                prop_assert_eq!((kernel_action, kernel_bytes), (action, bytes));
                expected.borrow_mut().iter_mut().zip(counted).for_each(|(sum, one)| *sum += one);
                prop_assert_eq!(counters(&ebpf.borrow()), *expected.borrow());
                Ok(())
            })
            .expect("kernel and host agree");
        let expected = expected.into_inner();
        let met = Outcome::ALL.into_iter().filter(|outcome| expected[*outcome as usize] != 0);
        let missed = Outcome::COUNT - met.count();
        // Without names nobody is a stranger.
        assert_eq!(missed, usize::from(!named), "{expected:?}");
    }
}
