//! Headers: what the core reads, etherparse reads too, and the same.

use std::cell::OnceCell;

use etherparse::{Ipv4HeaderSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice};
use xlvs_core::family::{Family, V4, V6};
use xlvs_core::icmp::quote;
use xlvs_core::options;
use xlvs_core::packet::Frame;
use xlvs_core::parse::{self as core, Net};
use xlvs_core::verdict::PassReason;
use xlvs_core::wire::{AddrV6, ethertype};

use crate::look::{L3, sum_of};
use crate::site::Site;

thread_local! {
    static SITE: OnceCell<Site> = const { OnceCell::new() };
}

/// Reads bytes as a frame, and, if there are enough, as IPv4 and as IPv6 whatever the ethertype says.
pub fn parse(data: &[u8]) {
    read(data);
    for kind in [[8, 0], [0x86, 0xdd]] {
        read(&[&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind[..], data].concat());
    }
}

fn read(bytes: &[u8]) {
    let mut buffer = [&[0; Frame::HEADROOM][..], bytes].concat();
    let mut frame = Frame::new(&mut buffer, Frame::HEADROOM);
    match core::ethernet(&frame) {
        Ok(ethertype::IPV4) => match V4::read(&frame) {
            Ok(net) => is_v4(&mut frame, &net),
            Err(_) => is_no_v4(&bytes[L3..]),
        },
        Ok(_) => {
            if let Ok(net) = V6::read(&frame) {
                is_v6(&frame, &net);
            }
        }
        Err(PassReason::Group | PassReason::NotIp | PassReason::Vlan) => {}
        Err(other) => panic!("an Ethernet header is not {other:?}"),
    }
}

fn is_v4(frame: &mut Frame<'_>, net: &Net<[u8; 4]>) {
    let bytes = frame.bytes().to_vec();
    let header = Ipv4HeaderSlice::from_slice(&bytes[L3..]).expect("etherparse reads it too");
    assert_eq!((net.src, net.dst), (header.source(), header.destination()));
    assert_eq!((net.protocol, net.len), (header.protocol().0, header.total_len()));
    assert_eq!(net.l4, L3 + header.slice().len());
    assert_eq!(net.fragment, header.is_fragmenting_payload());
    let is_whole = V4::is_whole(frame, net);
    assert_eq!(is_whole, sum_of(header.slice()) == 0, "whether the header's checksum is right");
    has_ports(&bytes, core::transport(frame, net.l4, net.protocol).ok(), net.l4);
    let quoted = quote::read_v4(frame, L3);
    assert!(quoted.is_none_or(|quoted| quoted.net.src == net.src && quoted.net.l4 == net.l4));
    SITE.with(|site| {
        let env = site.get_or_init(|| Site::of(&[])).env(1000);
        let checked = options::check(frame, &env);
        assert_eq!(frame.bytes(), bytes, "looking changes nothing");
        if checked.is_ok() {
            options::fill_in(frame, &env, [10, 0, 0, 100], 7).expect("what was looked at is sound");
            let after = frame.bytes();
            assert!(!is_whole || sum_of(&after[L3..net.l4]) == 0, "a right checksum stays right");
            let (outside, behind) = ([&after[..L3 + 10], &after[L3 + 12..L3 + 20]], &after[net.l4..]);
            assert_eq!(outside, [&bytes[..L3 + 10], &bytes[L3 + 12..L3 + 20]], "only options change");
            assert_eq!(behind, &bytes[net.l4..], "only options change");
        }
    });
}

/// What the core refuses, etherparse refuses as well, or it is longer than the frame.
fn is_no_v4(bytes: &[u8]) {
    if let Ok(header) = Ipv4HeaderSlice::from_slice(bytes) {
        let length = usize::from(header.total_len());
        assert!(length > bytes.len() || length < header.slice().len(), "etherparse reads it: {bytes:02x?}");
    }
}

fn is_v6(frame: &Frame<'_>, net: &Net<AddrV6>) {
    let bytes = frame.bytes();
    let header = Ipv6HeaderSlice::from_slice(&bytes[L3..]).expect("etherparse reads it too");
    assert_eq!((net.src.bytes(), net.dst.bytes()), (header.source(), header.destination()));
    assert_eq!(usize::from(net.len), 40 + usize::from(header.payload_length()));
    let payload = &bytes[L3 + 40..];
    let walked = Ipv6ExtensionsSlice::from_slice(header.next_header(), payload);
    if let Ok((extensions, next, rest)) = walked {
        // AH is one to etherparse; behind a fragment's header the core does not go.
        let differs = extensions.clone().into_iter().any(|extension| {
            matches!(
                extension,
                etherparse::Ipv6ExtensionSlice::Fragment(_)
                    | etherparse::Ipv6ExtensionSlice::Authentication(_)
            )
        });
        if !differs {
            assert_eq!((net.protocol, bytes.len() - net.l4), (next.0, rest.len()), "behind extensions");
        }
    }
    has_ports(bytes, core::transport(frame, net.l4, net.protocol).ok(), net.l4);
    let quoted = quote::read_v6(frame, L3);
    assert!(quoted.is_none_or(|quoted| quoted.net.src == net.src && quoted.net.l4 == net.l4));
}

fn has_ports(bytes: &[u8], transport: Option<core::Transport>, l4: usize) {
    if let Some(transport) = transport {
        assert_eq!([transport.src, transport.dst].concat(), bytes[l4..l4 + 4], "the ports");
    }
}
