//! Frames of several buffers: the programs attach where such come in, and do with them what the host build does. Needs root and
//! the eBPF object.

mod bpffs;

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use bpffs::BpfFs;
use nix::sched::{CloneFlags, unshare};
use xlvs_core::checksum::Sum;
use xlvs_core::director;
use xlvs_core::packet::Frame;
use xlvs_core::server::Hop;
use xlvs_core::verdict::{DropReason, Verdict};
use xlvs_core::vlan::Tags;
use xlvs_core::wire::ethertype;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::kernel::runs_at_tc;
use xlvs_datapath::nexthop::VlanDevice;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_datapath::tc::TC_ACT_REDIRECT;
use xlvs_datapath::xdp::{Mode, Pins, Place, Xdp};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::{Change, ServerKey, ServerSpec, ServiceKey, ServiceSpec};

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const VIP: [u8; 4] = [10, 0, 0, 100];
const METHODS: [(u16, Method); 3] = [(80, Method::Direct), (81, Method::Masquerade), (82, Method::Tunnel)];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// A server whose way takes no more than this has port 83.
const NARROW: u16 = 1500;

fn site(engine: &mut Engine) {
    let ways = METHODS.map(|(port, method)| (port, method, 9216)).into_iter();
    for (port, method, mtu) in ways.chain([(83, Method::Direct, NARROW)]) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = ServiceKey::Address { protocol, addr: IpAddr::from(VIP), port };
            let server = ServerKey { addr: IpAddr::from([10, 1, 0, port as u8]), port };
            let changes = [
                Change::AddService(ServiceSpec::new(key, Scheduler::Rr)),
                Change::AddServer(key, ServerSpec::new(server, method)),
            ];
            engine.apply(&changes).expect("a site that is right");
        }
        for destination in engine.destinations() {
            if destination.addr == IpAddr::from([10, 1, 0, port as u8]) {
                let hop = Hop { to: [2, 0, 0, 0, 2, 1], from: [2, 0, 0, 0, 1, 0xfe], ifindex: 7, mtu };
                engine.resolve(destination.id, &hop, IpAddr::from([10, 1, 0, 254]));
            }
        }
    }
    let device = VlanDevice { ifindex: 20, lower: 1, tags: Tags::one(ethertype::VLAN, 100) };
    assert_eq!(engine.set_vlan_devices(&[device]), 0);
}

/// A packet to a port of the VIP, in a frame with these tags.
fn frame(tags: &[u8], protocol: u8, port: u16, flags: u8, payload: usize) -> Vec<u8> {
    let mut l4 = [40000u16.to_be_bytes(), port.to_be_bytes()].concat();
    if protocol == TCP {
        l4.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0x12, 0x34, 0, 0]);
    } else {
        l4.extend([(8 + payload as u16).to_be_bytes(), [0, 0]].concat());
    }
    l4.extend((0..payload).map(|i| i as u8));
    let mut ip = vec![0x45, 0];
    ip.extend((20 + l4.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    ip.extend([CLIENT, VIP].concat());
    let sum = ip.as_chunks::<4>().0.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
    ip[10..12].copy_from_slice(&sum.checksum());
    [&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1][..], tags, &[8, 0], &ip, &l4].concat()
}

struct Both {
    xdp: Xdp,
    host: Arc<Tables>,
    _fs: BpfFs,
}

impl Both {
    fn new(name: &str) -> Self {
        let fs = BpfFs::new(name);
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u32;
        let sizes = Sizes::for_site(64, 16, 16, cpus);
        let xdp =
            Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 42).expect("the program loads");
        let host = Arc::new(Tables::on_heap(sizes, 42));
        for tables in [&host, xdp.tables()] {
            site(&mut Engine::new(Arc::clone(tables)));
        }
        Self { xdp, host, _fs: fs }
    }

    /// Plays a frame to both, which must say the same.
    fn play(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let env = HostEnv::new(&self.host, 0);
        env.set_now(self.xdp.now().expect("the clock runs").count());
        let mut buffer = vec![0; Frame::HEADROOM];
        buffer.extend(frame);
        let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
        let verdict = director::balance(&mut packet, &env);
        let (action, bytes) = self.xdp.try_packet(frame).expect("the packet runs");
        let expected = match verdict {
            Verdict::Pass(_) | Verdict::Local { .. } => 2,
            Verdict::Answer { .. } | Verdict::Transmit { .. } => 3,
            Verdict::Redirect { .. } => 4,
            Verdict::Drop(_) | Verdict::Cut { .. } | Verdict::PutTogether { .. } => 1,
        };
        assert_eq!(action, expected, "{verdict:?}");
        assert!(
            bytes == packet.bytes(),
            "{verdict:?}: other bytes, {} and {}",
            bytes.len(),
            packet.bytes().len()
        );
        (verdict, bytes)
    }
}

#[test]
fn packets_of_nine_thousand_bytes_are_sent_on_by_every_method() {
    let both = Both::new("long");
    for (port, _) in METHODS {
        let _opened = both.play(&frame(&[], TCP, port, 2, 0));
        for payload in [3300, 3400, 3466, 3467, 4000, 6000, 8920] {
            let long = frame(&[], TCP, port, 0x10, payload);
            let (verdict, left) = both.play(&long);
            assert_eq!(verdict, Verdict::Redirect { ifindex: 7 }, "port {port}, {payload} bytes");
            assert!(left.ends_with(&long[54..]), "what was sent arrives");
        }
    }
}

#[test]
fn padding_and_tags_of_long_frames_are_as_those_of_short_ones() {
    let both = Both::new("longer");
    let _opened = both.play(&frame(&[], TCP, 80, 2, 0));
    let mut padded = frame(&[], TCP, 80, 0x10, 5000);
    padded.resize(7000, 0);
    let (_, left) = both.play(&padded);
    assert_eq!(left.len(), 14 + 40 + 5000, "without what lay behind the packet");
    let (verdict, _) = both.play(&frame(&[0x81, 0, 0, 100], TCP, 80, 0x10, 5000));
    assert_eq!(verdict, Verdict::Redirect { ifindex: 7 });
    let mut others = frame(&[0x81, 0, 0, 100], TCP, 80, 0x10, 5000);
    others[18 + 16] = 77;
    assert!(matches!(both.play(&others).0, Verdict::Pass(_)));
    let mut cut = frame(&[], TCP, 80, 0x10, 5000);
    cut.truncate(5000);
    assert!(matches!(both.play(&cut).0, Verdict::Pass(_)), "it lies about its length");
}

#[test]
fn the_sender_of_one_that_is_too_long_is_told() {
    let both = Both::new("longest");
    let _opened = both.play(&frame(&[], TCP, 83, 2, 0));
    let (verdict, left) = both.play(&frame(&[], TCP, 83, 0x10, 8000));
    assert_eq!(verdict, Verdict::Answer { ifindex: 1 });
    assert_eq!(left.len(), 14 + 576);
    assert_eq!((left[34], left[35]), (3, 4), "fragmentation needed");
}

#[test]
fn of_an_aggregate_at_the_tc_hook_the_longest_segment_decides() {
    if let Err(why) = runs_at_tc() {
        return println!("left out: {why}");
    }
    let mut both = Both::new("segments");
    both.xdp.load_for_tc().expect("the programs of the tc hook load");
    let tc = both.xdp.tc().expect("they are loaded");
    let sent = |frame: &[u8], segment: u32| {
        let (action, left) = tc.try_packet(frame, segment).expect("the packet runs");
        assert_eq!(action, TC_ACT_REDIRECT, "segments of {segment} bytes");
        left
    };
    let _opened = sent(&frame(&[], TCP, 83, 2, 0), 0);
    let aggregate = frame(&[], TCP, 83, 0x10, 3400);
    assert!(sent(&aggregate, 1460).ends_with(&aggregate[54..]), "with 40 bytes of headers, that fits");
    for segment in [1461, 0] {
        let left = sent(&aggregate, segment);
        assert_eq!((left.len(), left[34], left[35]), (14 + 576, 3, 4), "fragmentation needed");
    }
}

#[test]
fn what_would_have_to_be_summed_over_several_buffers_is_dropped_and_counted() {
    let both = Both::new("sums");
    let malformed = || both.xdp.tables().dropped(DropReason::Malformed);
    let (verdict, _) = both.play(&frame(&[], UDP, 81, 0, 1000));
    assert_eq!((verdict, malformed()), (Verdict::Redirect { ifindex: 7 }, 0), "NAT gives it a checksum");
    let (action, _) = both.xdp.try_packet(&frame(&[], UDP, 81, 0, 6000)).expect("the packet runs");
    assert_eq!((action, malformed()), (1, 1));
}

#[test]
fn the_director_runs_in_the_driver_of_an_interface_with_jumbo_frames() {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let mut ip = Command::new("ip");
        let made = ip.args("link add j0 mtu 9000 type veth peer name j1 mtu 9000".split(' ')).status();
        assert!(made.expect("iproute2 is there").success());
        let mut both = Both::new("jumbo");
        assert_eq!(both.xdp.attach("j0", Mode::Native).expect("it is attached"), Place::Native);
    })
    .join()
    .expect("it attaches");
}
