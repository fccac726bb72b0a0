//! How two plays of a fixture are compared.
//!
//! Left out is only what differs from boot to boot: identifications and flow labels that the director chose itself, GUE's
//! source port (a keyed hash), the clock in an ICMP timestamp, and the checksums over these.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{from_hex, list, to_hex};

const ETHERNET: usize = 14;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const TIMESTAMP_REPLY: u8 = 14;
/// The recordings' GUE has a port of its own.
const GUE: [u8; 2] = 5555u16.to_be_bytes();

/// The first difference of a play from the recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// Other frames came out, or none could be sent: in a sentence.
    Frames(String),
    /// All frames are alike, but not the connections that were listed after one.
    Entries(String),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Frames(how) => write!(f, "frames: {how}"),
            Difference::Entries(how) => write!(f, "entries: {how}"),
        }
    }
}

/// How a play differs from the recording. None: they are alike.
pub fn difference(fixture: &Value, played: &Value) -> Option<Difference> {
    if let Some(why) = played["error"].as_str() {
        return Some(Difference::Frames(why.to_owned()));
    }
    let senders = Senders::of(fixture);
    let (theirs, ours) = (list(fixture, "steps"), list(played, "steps"));
    if theirs.len() != ours.len() {
        let how = format!("{} steps instead of {}", ours.len(), theirs.len());
        return Some(Difference::Frames(how));
    }
    let steps = || theirs.iter().zip(ours).enumerate();
    let frames = steps().find_map(|(number, (theirs, ours))| {
        let (ours, theirs) = (senders.frames(ours), senders.frames(theirs));
        let how = || format!("step {number}: {ours:?}, recorded {theirs:?}");
        (ours != theirs).then(|| Difference::Frames(how()))
    });
    let entries = steps().filter(|(_, (theirs, _))| theirs.get("conn").is_some());
    let mut entries = entries.filter_map(|(number, (theirs, ours))| {
        let (ours, theirs) = (entries_of(ours), entries_of(theirs));
        let how = || format!("step {number}: {ours:?}, recorded {theirs:?}");
        (ours != theirs).then(|| Difference::Entries(how()))
    });
    frames.or_else(|| entries.next())
}

/// What clients and servers chose themselves, and what must therefore come out as it went in.
#[derive(Default)]
struct Senders {
    identifications: BTreeSet<[u8; 2]>,
    labels: BTreeSet<[u8; 3]>,
    fragments: BTreeSet<[u8; 4]>,
}

impl Senders {
    fn of(fixture: &Value) -> Self {
        let mut senders = Self::default();
        let sent = list(fixture, "steps").iter().filter_map(|step| from_hex(step["hex"].as_str()?).ok());
        for frame in sent {
            let Some(packet) = frame.get(ETHERNET..) else { continue };
            if is_v4(packet) {
                senders.identifications.insert([packet[4], packet[5]]);
            } else if is_v6(packet) {
                senders.labels.insert(label(packet));
                if let (FRAGMENT, Some(&[a, b, c, d])) = (packet[6], packet.get(44..48)) {
                    senders.fragments.insert([a, b, c, d]);
                }
            }
        }
        senders
    }

    /// What a step saw: where, and what, without what may differ.
    fn frames(&self, step: &Value) -> Vec<String> {
        let frame = |seen: &Value| {
            let mut bytes = from_hex(seen["hex"].as_str().unwrap_or_default()).unwrap_or_default();
            if let Some(packet) = bytes.get_mut(ETHERNET..) {
                self.mask(packet);
            }
            format!("{} {}", seen["at"].as_str().unwrap_or_default(), to_hex(&bytes))
        };
        list(step, "seen").iter().map(frame).collect()
    }

    fn mask(&self, packet: &mut [u8]) {
        if is_v4(packet) {
            self.mask_v4(packet);
        } else if is_v6(packet) {
            self.mask_v6(packet);
        }
    }

    fn mask_v4(&self, packet: &mut [u8]) {
        let may_be_fragmented = packet[6] & 0x40 == 0;
        if may_be_fragmented && !self.identifications.contains(&[packet[4], packet[5]]) {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        if packet[9] == UDP {
            mask_gue(&mut packet[V4_HEADER..]);
        } else if packet[9] == ICMP && packet.len() == 40 && packet[V4_HEADER] == TIMESTAMP_REPLY {
            packet[22..24].fill(0);
            packet[32..40].fill(0);
        }
    }

    fn mask_v6(&self, packet: &mut [u8]) {
        if !self.labels.contains(&label(packet)) {
            packet[1] &= 0xf0;
            packet[2..4].fill(0);
        }
        if packet[6] == UDP {
            mask_gue(&mut packet[V6_HEADER..]);
        } else if packet[6] == FRAGMENT && packet.len() >= V6_HEADER + FRAGMENT_HEADER {
            let (header, data) = packet[V6_HEADER..].split_at_mut(FRAGMENT_HEADER);
            if header[0] == UDP && header[2] == 0 && header[3] & 0xf8 == 0 {
                mask_gue(data);
            }
            if !self.fragments.contains(&header[4..8]) {
                header[4..8].fill(0);
            }
        }
    }
}

fn is_v4(packet: &[u8]) -> bool {
    packet.len() >= V4_HEADER && packet[0] >> 4 == 4
}

fn is_v6(packet: &[u8]) -> bool {
    packet.len() >= V6_HEADER && packet[0] >> 4 == 6
}

fn label(packet: &[u8]) -> [u8; 3] {
    [packet[1] & 0x0f, packet[2], packet[3]]
}

fn mask_gue(datagram: &mut [u8]) {
    if datagram.len() >= 8 && datagram[2..4] == GUE {
        datagram[..2].fill(0);
        // Without a checksum there is none either way.
        if datagram[6..8] != [0, 0] {
            datagram[6..8].fill(0xff);
        }
    }
}

/// A step's entries without the time that they have left, in one order: the kernel's is that of its hash table.
fn entries_of(step: &Value) -> Vec<String> {
    let words = |line: &Value| {
        let words: Vec<&str> = line.as_str().unwrap_or_default().split_whitespace().collect();
        words
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 1)
            .map(|(_, word)| *word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut entries: Vec<String> = list(step, "conn").iter().map(words).collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SENT: &str = "0200000000fe02000000000108004500001c123400004011000000000000000000009c41005000080000";

    fn fixture(seen: &str) -> Value {
        json!({ "steps": [{ "at": "client", "hex": SENT, "seen": [{ "at": "server", "hex": seen }],
                            "conn": ["UDP 04:59  UDP         10.0.0.1:40001     10.0.0.100:80      10.1.0.11:80"] }] })
    }

    fn ours(seen: &str, entry: &str) -> Value {
        json!({ "steps": [{ "seen": [{ "at": "server", "hex": seen }], "conn": [entry] }] })
    }

    const ENTRY: &str = "UDP 04:58 UDP 10.0.0.1:40001 10.0.0.100:80 10.1.0.11:80";

    #[test]
    fn only_what_the_director_chose_may_differ() {
        let own = |id: &str| SENT.replace("1234", id);
        let differs = |theirs: &str, ours_: &str| difference(&fixture(theirs), &ours(ours_, ENTRY)).is_some();
        assert!(!differs(&own("0001"), &own("0002")));
        assert!(differs(SENT, &own("0002")), "the sender's own is kept");
        assert!(!differs(SENT, SENT));
        assert!(differs(SENT, &SENT.replace("9c41", "9c42")));
    }

    #[test]
    fn entries_are_compared_but_for_their_time() {
        let found = difference(&fixture(SENT), &ours(SENT, &ENTRY.replace(".11", ".12")));
        assert!(matches!(found, Some(Difference::Entries(_))), "{found:?}");
    }

    #[test]
    fn what_could_not_be_played_differs() {
        for played in [json!({ "steps": [] }), json!({ "error": "no such tunable" })] {
            assert!(matches!(difference(&fixture(SENT), &played), Some(Difference::Frames(_))));
        }
    }
}
