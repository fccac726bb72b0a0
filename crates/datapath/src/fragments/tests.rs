//! What the kernel did with recorded fragments, and what must hold for any.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    piece::{Key, Piece},
    *,
};

/// IPv6 in IPv6, where the kernel leaves the pieces as they came: the tunnel's headers make the first one longer than the
/// others, which is no even cut.
const KEPT_APART: [&str; 5] = [
    "v6-tun-frag-reversed",
    "v6-tun-frag-duplicate",
    "v6-gre-csum-frag-in-order",
    "v6-tun-frag-tiny",
    "v6-tun-frag-after-entry",
];

const SECOND: Duration = Duration::from_secs(1);

fn v4(len: usize, field: u16, tos: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 8, 0][..], &[0; 20], data].concat();
    let header = &mut frame[14..34];
    (header[0], header[1], header[8], header[9]) = (0x45, tos, 64, 17);
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[4..6].copy_from_slice(&[0x20, 1]);
    header[6..8].copy_from_slice(&field.to_be_bytes());
    header[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 100]);
    cut::seal_v4(header);
    frame
}

/// A fragment of zeros: so many bytes from there on.
fn part(offset: usize, bytes: usize, more: bool) -> Vec<u8> {
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    v4(20 + bytes, field, 0, &vec![0; bytes])
}

fn v6(data: &[u8]) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    let [high, low] = ((data.len() + 8) as u16).to_be_bytes();
    // Hop-by-hop options in front of UDP: padding only.
    [&ethernet[..], &[0x60, 0, 0, 0, high, low, 0, 64], &[0xfd; 32], &[17, 0, 1, 4, 0, 0, 0, 0], data]
        .concat()
}

fn take(held: &mut Reassembler, frame: &[u8], now: Duration) -> Effects {
    held.step(Event::Fragment { ifindex: 3, frame }, now)
}

/// Takes fragments in at one moment: the packets that became whole, and why some were refused.
fn take_all(held: &mut Reassembler, frames: &[Vec<u8>]) -> (Vec<Whole>, Vec<Refusal>) {
    let effects: Vec<_> = frames.iter().map(|frame| take(held, frame, SECOND)).collect();
    let (whole, refused): (Vec<_>, Vec<_>) = effects.into_iter().map(|e| (e.whole, e.refused)).unzip();
    (whole.into_iter().flatten().collect(), refused.into_iter().flatten().collect())
}

fn bytes(hex: &serde_json::Value) -> Vec<u8> {
    let digits = hex.as_str().expect("a frame");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

/// The frames that came out of the kernel after each step of each recorded fixture of a group.
fn recorded(group: &str) -> Vec<(String, Vec<Vec<u8>>)> {
    let path = format!("{}/../../tests/oracle/packets/{group}.json", env!("CARGO_MANIFEST_DIR"));
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the recording")).expect("JSON");
    let of_fixture = |fixture: &serde_json::Value| {
        let name = fixture["name"].as_str().expect("a name").to_string();
        let steps = fixture["steps"].as_array().expect("steps").clone();
        steps.into_iter().map(move |step| {
            let seen = step["seen"].as_array().cloned().unwrap_or_default();
            (name.clone(), seen.iter().map(|frame| bytes(&frame["hex"])).collect())
        })
    };
    file["fixtures"].as_array().expect("fixtures").iter().flat_map(of_fixture).collect()
}

#[test]
fn what_the_kernel_cut_is_put_together_and_cut_alike() {
    let (mut alike, mut otherwise) = (0, Vec::new());
    for (name, frames) in ["fragments", "edges"].into_iter().flat_map(recorded) {
        let fragments: Vec<_> = frames.into_iter().filter(|frame| Piece::read(frame).is_ok()).collect();
        if fragments.len() < 2 {
            continue;
        }
        let id = match Piece::read(&fragments[0]).expect("a fragment").key {
            Key::V6 { id, .. } => u32::from_be_bytes(id),
            Key::V4 { .. } => 0,
        };
        let (whole, refused) = take_all(&mut Reassembler::default(), &fragments);
        assert!(whole.len() == 1 && refused.is_empty(), "{name}: {refused:?}");
        assert!(whole[0].fragments == fragments, "{name}");
        let Whole { frame, largest, parts, .. } = &whole[0];
        assert!(cut(frame, *largest, id, parts).as_ref() == Ok(&fragments), "{name}");
        match cut(frame, *largest, id, &[]) {
            Ok(again) if again == fragments => alike += 1,
            _ => otherwise.push(name),
        }
    }
    assert!(alike > 50, "{alike} recorded packets were cut alike");
    assert_eq!(otherwise, KEPT_APART);
}

#[test]
fn an_overlap_drops_all_and_what_comes_later_begins_anew() {
    let mut held = Reassembler::default();
    let frames = [part(0, 1000, true), part(992, 1000, true), part(2000, 508, false)];
    assert_eq!(take_all(&mut held, &frames), (vec![], vec![Refusal::Overlap]));
    // Only the third is held, and no first fragment: nobody is told.
    let effects = held.step(Event::Tick, SECOND + TIMEOUT_V4);
    let expired = vec![Expired { ifindex: 3, first: None }];
    assert_eq!((effects, held.memory()), (Effects { expired, ..Effects::default() }, 0));
}

#[test]
fn time_runs_from_the_first_that_came_and_the_sender_is_told() {
    let mut held = Reassembler::default();
    take(&mut held, &part(1000, 1000, true), SECOND);
    take(&mut held, &part(0, 1000, true), SECOND * 20);
    assert_eq!(held.deadline(), Some(SECOND + TIMEOUT_V4));
    let early = held.step(Event::Tick, SECOND * 30);
    assert_eq!(early, Effects::default());
    let late = held.step(Event::Tick, SECOND * 31);
    assert_eq!(late.expired, [Expired { ifindex: 3, first: Some(part(0, 1000, true)) }]);
    assert_eq!((held.deadline(), held.memory()), (None, 0));
}

#[test]
fn ipv6_is_held_for_a_minute() {
    let mut held = Reassembler::default();
    let fragments = cut(&v6(&[7; 3000]), 1280, 9, &[]).expect("fragments");
    take(&mut held, &fragments[0], SECOND);
    assert_eq!(held.deadline(), Some(SECOND * 61));
}

#[test]
fn fragments_that_disagree_about_the_end_are_dropped() {
    for frames in [
        [part(0, 8, true), part(16, 8, false), part(24, 8, true)],
        [part(0, 8, true), part(24, 8, true), part(8, 8, false)],
        [part(0, 8, true), part(16, 8, false), part(8, 16, false)],
    ] {
        let mut held = Reassembler::default();
        let (whole, refused) = take_all(&mut held, &frames);
        assert!(whole.is_empty());
        assert!(matches!(refused[..], [Refusal::Ends | Refusal::Overlap]), "{refused:?}");
        assert_eq!(held.memory(), 0);
    }
}

#[test]
fn a_packet_is_never_longer_than_a_packet_can_be() {
    let mut held = Reassembler::default();
    assert_eq!(take(&mut held, &part(65_528, 8, false), SECOND).refused, Some(Refusal::TooLong));
    assert_eq!(held.memory(), 0);
}

#[test]
fn a_first_fragment_with_longer_headers_makes_it_too_long() {
    // 65,515 bytes of data fit behind 20 bytes of header, but the first fragment has 24.
    let mut first = part(0, 32_768, true);
    first.splice(34..34, [1, 1, 1, 0]);
    first[14] = 0x46;
    first[16..18].copy_from_slice(&(24_u16 + 32_768).to_be_bytes());
    let mut held = Reassembler::default();
    assert_eq!(take_all(&mut held, &[part(32_768, 32_747, false), first]), (vec![], vec![Refusal::TooLong]));
    assert_eq!(held.memory(), 0);
}

#[test]
fn the_whole_forbids_cutting_if_its_largest_fragment_did() {
    for (largest, other, expected) in [(0x4000, 0, 0x4000_u16), (0, 0x4000, 0)] {
        let frames = [v4(36, 0x2000 | largest, 0, &[0; 16]), v4(28, 2 | other, 0, &[0; 8])];
        let (whole, _) = take_all(&mut Reassembler::default(), &frames);
        assert_eq!((&whole[0].frame[20..22], whole[0].largest), (&expected.to_be_bytes()[..], 36));
    }
}

#[test]
fn congestion_is_the_whole_packets_unless_a_fragment_knows_no_ecn() {
    for (first, second, expected) in
        [(2, 3, Some(3)), (3, 1, Some(3)), (2, 1, Some(2)), (0, 0, Some(0)), (0, 3, None)]
    {
        let frames = [v4(28, 0x2000, first, &[0; 8]), v4(28, 1, second, &[0; 8])];
        let mut held = Reassembler::default();
        let (whole, refused) = take_all(&mut held, &frames);
        assert_eq!(whole.first().map(|whole| whole.frame[15]), expected);
        assert_eq!(refused.first(), expected.is_none().then_some(&Refusal::Ecn));
        assert_eq!(held.memory(), 0);
    }
}

#[test]
fn a_full_memory_refuses_and_is_free_again_after_the_timeout() {
    let mut held = Reassembler::new((TIMEOUT_V4, TIMEOUT_V6), 2000);
    let refused = take_all(&mut held, &[part(0, 1000, true), part(1000, 1000, true)]).1;
    assert_eq!(refused, [Refusal::NoRoom]);
    assert_eq!(take(&mut held, &part(1000, 1000, true), SECOND * 40).refused, None);
}

#[test]
fn later_fragments_have_only_the_options_to_be_copied() {
    // Record route (7, not copied), no operation, a stream identifier (0x88, copied), the end.
    let options = [7, 3, 4, 1, 0x88, 4, 0, 9, 0, 0, 0, 0];
    let mut packet = v4(20 + 12 + 100, 0, 0, &[5; 100]);
    packet.splice(34..34, options);
    packet[14] = 0x48;
    let fragments = cut(&packet, 84, 0, &[]).expect("fragments");
    assert_eq!(fragments[0][34..46], options);
    assert_eq!(fragments[1][34..46], [1, 1, 1, 1, 0x88, 4, 0, 9, 0, 0, 0, 0]);
    assert_eq!(fragments.len(), 3);
}

/// How many bytes of data the fragments have.
fn data_of(fragments: &[Vec<u8>]) -> Vec<usize> {
    fragments.iter().map(|fragment| Piece::read(fragment).expect("a fragment").data.len()).collect()
}

#[test]
fn what_came_in_parts_leaves_in_the_same_parts_where_they_still_do() {
    let cut_up = |packet: &[u8], size, came_in: &[usize]| data_of(&cut(packet, size, 7, came_in).unwrap());
    let v4 = v4(20 + 700, 0, 0, &[3; 700]);
    assert_eq!(cut_up(&v4, 1500, &[96, 400, 204]), [96, 400, 204]);
    assert_eq!(cut_up(&v4, 1500, &[88, 400, 204]), [96, 400, 204], "a header of 8 bytes was put in front");
    assert_eq!(cut_up(&v4, 420, &[400, 96, 196]), [400, 300], "it makes the first too long");
    assert_eq!(cut_up(&v4, 420, &[72, 404, 204]), [400, 300], "it is no unit of 8 bytes");
    let v6 = v6(&[3; 3000]);
    let hop_by_hop = 8;
    assert_eq!(
        cut_up(&v6, 1048, &[992, 1000, 1008 - 4]),
        [1224, 1224, 552],
        "never shorter than IPv6 demands"
    );
    assert_eq!(cut_up(&v6, 1048 + hop_by_hop, &[1000, 1000, 1000]), [1000, 1000, 1000]);
}

#[test]
fn a_whole_packet_with_a_fragment_header_waits_for_nobody() {
    let fragments = cut(&v6(&[7; 200]), 1048, 9, &[200]).expect("one packet");
    assert_eq!(fragments, [v6(&[7; 200])], "it is not longer than what came");
    let atomic = cut(&v6(&[7; 200]), 247, 9, &[200]).expect("one fragment");
    let mut held = Reassembler::default();
    let others = cut(&v6(&[7; 3000]), 1280, 9, &[]).expect("fragments of the same identification");
    assert_eq!(take(&mut held, &others[0], SECOND).whole, None);
    let (memory, whole) = (held.memory(), take(&mut held, &atomic[0], SECOND).whole.expect("a packet"));
    assert_eq!((whole.frame, whole.parts, held.memory()), (v6(&[7; 200]), vec![200], memory));
}

#[test]
fn a_way_too_narrow_for_any_data_is_an_error() {
    assert_eq!(cut(&part(0, 100, false), 27, 0, &[]), Err(CutError::TooSmall(27)));
    assert_eq!(cut(&v6(&[0; 100]), 63, 0, &[]), Err(CutError::TooSmall(63)));
}

/// A packet of either family.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop::collection::vec(any::<u8>(), 1..6000)).prop_map(|(is_v4, data)| match is_v4 {
        true => v4(20 + data.len(), 0, 0, &data),
        false => v6(&data),
    })
}

proptest! {
    #[test]
    fn fragments_in_any_order_make_the_packet_again(
        packet in packet(),
        size in 72_u16..1600,
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let fragments = cut(&packet, size, 77, &[]).unwrap();
        prop_assume!(fragments.len() > 1);
        let mut shuffled = fragments.clone();
        for (at, index) in order.iter().enumerate() {
            let (a, b) = (at % fragments.len(), index.index(fragments.len()));
            shuffled.swap(a, b);
        }
        let mut held = Reassembler::default();
        let last = shuffled.pop().unwrap();
        let (none, _) = take_all(&mut held, &shuffled);
        prop_assert!(none.is_empty());
        // Again: none counts twice.
        let (none, refused) = take_all(&mut held, &shuffled);
        prop_assert!(none.is_empty());
        prop_assert_eq!(refused, vec![Refusal::Duplicate; shuffled.len()]);
        let whole = take(&mut held, &last, SECOND).whole.unwrap();
        prop_assert_eq!(whole.frame, packet);
        prop_assert_eq!(whole.fragments, fragments);
        prop_assert_eq!((held.memory(), held.deadline()), (0, None));
    }

    #[test]
    fn no_fragment_is_longer_than_asked_for(packet in packet(), size in 72_u16..1600) {
        for fragment in cut(&packet, size, 77, &[]).unwrap() {
            prop_assert!(fragment.len() - 14 <= usize::from(size));
        }
    }

    #[test]
    fn damaged_fragments_neither_panic_nor_stay(
        packet in packet(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..80, any::<u8>()), 0..12),
        length in 0_usize..1600,
    ) {
        let mut fragments = cut(&packet, 600, 77, &[]).unwrap();
        for (which, at, value) in damage {
            let which = which.index(fragments.len());
            if let Some(byte) = fragments[which].get_mut(at) {
                *byte = value;
            }
        }
        fragments[0].truncate(length);
        let mut held = Reassembler::new((TIMEOUT_V4, TIMEOUT_V6), 4000);
        for fragment in &fragments {
            let parts = cut(fragment, 300, 1, &[]).unwrap_or_default();
            prop_assert!(parts.iter().all(|part| part.len() <= 300 + 14 + 8));
            if let Some(whole) = take(&mut held, fragment, SECOND).whole {
                prop_assert!(cut(&whole.frame, whole.largest.max(128), 1, &[]).is_ok());
            }
            prop_assert!(held.memory() <= 4000);
        }
        held.step(Event::Tick, SECOND + TIMEOUT_V6);
        prop_assert_eq!((held.memory(), held.deadline()), (0, None));
    }
}
