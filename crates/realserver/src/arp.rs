//! The frames by which IPv4 asks who has an address (RFC 826).

use std::net::Ipv4Addr;

use crate::frames::Mac;

/// Asks everybody. It names no sender (RFC 5227, "probes"), so that nobody learns anything from it.
pub(crate) fn question(mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], mac.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0.iter().chain(&[0; 4]).chain(&[0; 6]).chain(&target.octets()));
    frame
}

/// Who has which address, if the frame says so.
pub(crate) fn answer(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    const REPLY_OF_IPV4: [u8; 10] = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    if frame.get(12..22)? != REPLY_OF_IPV4 {
        return None;
    }
    let mac = Mac(frame.get(22..28)?.try_into().ok()?);
    let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some((sender.into(), mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_ipv4_is_one() {
        let mac = Mac([2, 0, 0, 0, 0, 0xfe]);
        let mut frame = question(mac, [10, 0, 0, 100].into());
        assert_eq!((frame.len(), answer(&frame)), (42, None));
        frame[21] = 2;
        assert_eq!(answer(&frame), Some(([0; 4].into(), mac)));
        assert_eq!(mac.to_string(), "02:00:00:00:00:fe");
        frame.truncate(31);
        assert_eq!(answer(&frame), None);
    }
}
