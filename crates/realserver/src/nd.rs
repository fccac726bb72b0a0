//! The frames by which IPv6 asks who has an address (RFC 4861 4.3 and 4.4).

use std::net::{IpAddr, Ipv6Addr};

use crate::frames::{Mac, checksum, pseudo_header, v6_header};

const ICMP: u8 = 58;
/// What came from farther away than the link has fewer (RFC 4861 7.1).
const HOPS: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const TARGET_MAC: u8 = 2;

/// Asks those whose address ends like this one. Who answers learns our MAC, and nothing else.
pub(crate) fn question(mac: Mac, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let option = [&[1, 1][..], &mac.0].concat();
    let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &option].concat();
    let length = message.len() as u16;
    let (from, to) = (IpAddr::V6(from), IpAddr::V6(group));
    let sum = checksum(&[pseudo_header(from, to, ICMP, length), message.clone()].concat());
    message.splice(2..4, sum);
    let ethernet = [&[0x33, 0x33, 0xff, a, b, c][..], &mac.0, &[0x86, 0xdd]].concat();
    [ethernet, v6_header(from, to, ICMP, HOPS, length), message].concat()
}

/// Who has which address, if the frame says so.
pub(crate) fn answer(frame: &[u8]) -> Option<(Ipv6Addr, Mac)> {
    let is_one = frame.get(12..14)? == [0x86, 0xdd]
        && frame.get(20..22)? == [ICMP, HOPS]
        && frame.get(54..56)? == [ADVERTISEMENT, 0];
    if !is_one {
        return None;
    }
    let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
    let mac = match frame.get(78..86) {
        Some([TARGET_MAC, 1, mac @ ..]) => mac.try_into().ok()?,
        // It may be left out of an answer to one alone, and is then that of the frame.
        _ => frame.get(6..12)?.try_into().ok()?,
    };
    Some((target.into(), Mac(mac)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_for_those_whose_address_ends_alike() {
        let target: Ipv6Addr = "fd00::12:3456".parse().expect("an address");
        let mac = Mac([2, 0, 0, 0, 0, 0xfe]);
        let frame = question(mac, "fe80::1".parse().expect("an address"), target);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let (from, to) = (&frame[22..38], &frame[38..54]);
        assert_eq!(to[11..], [1, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(checksum(&[from, to, &[0, 58, 0, 32], &frame[54..]].concat()), [0, 0]);
        assert_eq!(answer(&frame), None);
    }

    #[test]
    fn an_answer_tells_its_mac_or_comes_from_it() {
        let target: Ipv6Addr = "fd00::100".parse().expect("an address");
        let message = [&[ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets()].concat();
        let head = v6_header(IpAddr::V6(target), "fe80::1".parse().expect("an address"), ICMP, HOPS, 24);
        let short = [&[1; 6][..], &[7; 6], &[0x86, 0xdd], &head, &message].concat();
        assert_eq!(answer(&short), Some((target, Mac([7; 6]))));
        let whole = [&short[..], &[TARGET_MAC, 1], &[9; 6]].concat();
        assert_eq!(answer(&whole), Some((target, Mac([9; 6]))));
        let mut far = whole;
        far[21] = 254;
        assert_eq!(answer(&far), None);
        assert_eq!(answer(&short[..77]), None);
    }
}
