//! IPv4 options on the host build: what a router writes into them, and what it leaves to the stack.

use std::sync::Arc;

use xlvs_core::checksum::Sum;
use xlvs_core::conn::word::Tick;
use xlvs_core::family::{Family, V4};
use xlvs_core::options;
use xlvs_core::packet::Frame;
use xlvs_core::verdict::PassReason;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::tables::{Sizes, Tables};

const OWN: [u8; 4] = [10, 0, 0, 100];
const TIME: u32 = 0x0102_0304;

/// What becomes of these options, filled up to four bytes.
fn filled_in(given: &[u8]) -> Result<Vec<u8>, PassReason> {
    let tables = Arc::new(Tables::on_heap(Sizes::for_site(64, 8, 8, 1), 1));
    let env = HostEnv::new(&tables, 0);
    let mut given = given.to_vec();
    given.resize(given.len().next_multiple_of(4), 0);
    let header = 20 + given.len();
    let mut ip = vec![0x40 | (header / 4) as u8, 0, 0, header as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend([10, 0, 0, 1, 10, 0, 0, 100]);
    ip.extend(&given);
    let sum = ip.as_chunks::<4>().0.iter().fold(Sum::ZERO, |sum, word| sum.add32(*word));
    ip[10..12].copy_from_slice(&sum.checksum());
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend([2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0]);
    buffer.extend(ip);
    let before = buffer.clone();
    let mut packet = Frame::new(&mut buffer, Frame::HEADROOM);
    let net = V4::read(&packet).expect("a packet");
    let checked = options::check(&mut packet, &env);
    assert_eq!(packet.bytes(), &before[Frame::HEADROOM..], "looking changes nothing");
    checked?;
    options::fill_in(&mut packet, &env, OWN, TIME).expect("they are sound");
    assert!(V4::is_whole(&packet, &net), "the checksum fits");
    Ok(packet.bytes()[34..].to_vec())
}

#[test]
fn a_route_is_recorded_in_the_next_slot() {
    let filled = filled_in(&[7, 11, 8, 1, 2, 3, 4, 0, 0, 0, 0]);
    assert_eq!(filled, Ok(vec![7, 11, 12, 1, 2, 3, 4, 10, 0, 0, 100, 0]));
}

#[test]
fn a_full_record_stays_as_it_is() {
    assert_eq!(filled_in(&[7, 7, 8, 1, 2, 3, 4, 1]), Ok(vec![7, 7, 8, 1, 2, 3, 4, 1]));
}

#[test]
fn times_are_stamped_alone_or_beside_the_address() {
    assert_eq!(filled_in(&[68, 8, 5, 0, 9, 9, 9, 9]), Ok(vec![68, 8, 9, 0, 1, 2, 3, 4]));
    let beside = filled_in(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(beside, Ok(vec![68, 12, 13, 1, 10, 0, 0, 100, 1, 2, 3, 4]));
}

#[test]
fn a_time_is_stamped_for_the_host_that_was_asked_only() {
    let ours = filled_in(&[68, 12, 5, 3, 10, 0, 0, 100, 0, 0, 0, 0]);
    assert_eq!(ours, Ok(vec![68, 12, 13, 3, 10, 0, 0, 100, 1, 2, 3, 4]));
    let others = vec![68, 12, 5, 3, 10, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(filled_in(&others), Ok(others));
}

#[test]
fn who_finds_no_slot_for_the_time_is_counted() {
    assert_eq!(filled_in(&[68, 8, 9, 0x20, 1, 1, 1, 1]), Ok(vec![68, 8, 9, 0x30, 1, 1, 1, 1]));
    assert_eq!(filled_in(&[68, 8, 9, 0xf0, 1, 1, 1, 1]), Err(PassReason::Malformed));
}

#[test]
fn what_lies_behind_the_end_is_made_zero() {
    assert_eq!(filled_in(&[1, 0, 7, 200, 131, 1, 1, 1]), Ok(vec![1, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn source_routes_and_labels_are_the_stacks() {
    for kind in [131, 137, 134] {
        assert_eq!(filled_in(&[1, kind, 7, 4, 9, 9, 9, 9]), Err(PassReason::Options), "{kind}");
    }
}

#[test]
fn options_that_lie_about_themselves_are_the_stacks() {
    let lies: [&[u8]; 9] = [
        &[7, 1, 0, 0],
        &[7, 12, 4, 0],
        &[7, 4, 3, 0],
        &[7, 8, 6, 0, 0, 0, 0, 0],
        &[7, 3, 4, 7, 3, 4, 0, 0],
        &[68, 3, 5, 0],
        &[68, 8, 4, 0, 0, 0, 0, 0],
        &[68, 8, 5, 1, 0, 0, 0, 0],
        &[148, 3, 0, 0],
    ];
    for options in lies {
        assert_eq!(filled_in(options), Err(PassReason::Malformed), "{options:?}");
    }
}

#[test]
fn the_time_of_day_goes_on_between_two_words_of_the_daemon() {
    let tables = Tables::on_heap(Sizes::for_site(64, 8, 8, 1), 1);
    let config = tables.config();
    let now = Tick::new(1 << 23);
    config.set_time(now, 86_400_000 * 20_000 + 86_399_800);
    assert_eq!(config.milliseconds_of_day(now), 86_399_800);
    assert_eq!(config.milliseconds_of_day(Tick::new(now.count() + 1)), 50);
}
