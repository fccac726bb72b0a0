//! What identifies a connection in the table: both ends as words that compare fast.

use crate::wire::AddrV6;

/// Words of an IPv4 key.
pub const V4: usize = 2;
/// Words of an IPv6 key.
pub const V6: usize = 5;

/// Marks in the key's last bytes, so that entries of different kinds never match each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An ordinary connection.
    Conn = 0,
    /// A persistence template.
    Template = 1,
    /// In the service table: a NAT server's end of its connections.
    Server = 2,
}

/// The kind byte of a key.
#[inline(always)]
pub const fn kind_of<const K: usize>(key: &[u64; K]) -> u8 {
    (key[K - 1] >> 40) as u8
}

/// The key of an IPv4 entry. Addresses and ports as on the wire.
///
/// Word 0 holds `from` and `to`; word 1 the ports, the IP protocol and the kind.
#[inline(always)]
pub const fn v4(
    from: [u8; 4],
    from_port: [u8; 2],
    to: [u8; 4],
    to_port: [u8; 2],
    protocol: u8,
    kind: Kind,
) -> [u64; V4] {
    [
        u32::from_ne_bytes(from) as u64 | (u32::from_ne_bytes(to) as u64) << 32,
        ports(from_port, to_port, protocol, kind),
    ]
}

/// The key of an IPv6 entry. Addresses and ports as on the wire.
#[inline(always)]
pub const fn v6(
    from: AddrV6,
    from_port: [u8; 2],
    to: AddrV6,
    to_port: [u8; 2],
    protocol: u8,
    kind: Kind,
) -> [u64; V6] {
    let ([a, b], [c, d]) = (from.0, to.0);
    [a, b, c, d, ports(from_port, to_port, protocol, kind)]
}

#[inline(always)]
const fn ports(from: [u8; 2], to: [u8; 2], protocol: u8, kind: Kind) -> u64 {
    u16::from_ne_bytes(from) as u64
        | (u16::from_ne_bytes(to) as u64) << 16
        | (protocol as u64) << 32
        | (kind as u64) << 40
}

/// A key's parts: (from, from_port, to, to_port, protocol, kind byte).
pub type PartsV4 = ([u8; 4], [u8; 2], [u8; 4], [u8; 2], u8, u8);

/// Takes an IPv4 key apart again.
#[inline(always)]
pub const fn parts_v4(key: [u64; V4]) -> PartsV4 {
    let [addrs, rest] = key;
    (
        (addrs as u32).to_ne_bytes(),
        (rest as u16).to_ne_bytes(),
        ((addrs >> 32) as u32).to_ne_bytes(),
        ((rest >> 16) as u16).to_ne_bytes(),
        (rest >> 32) as u8,
        (rest >> 40) as u8,
    )
}

/// An IPv6 key's parts, likewise.
pub type PartsV6 = (AddrV6, [u8; 2], AddrV6, [u8; 2], u8, u8);

/// Takes an IPv6 key apart again.
#[inline(always)]
pub const fn parts_v6(key: [u64; V6]) -> PartsV6 {
    let [a, b, c, d, rest] = key;
    (
        AddrV6([a, b]),
        (rest as u16).to_ne_bytes(),
        AddrV6([c, d]),
        ((rest >> 16) as u16).to_ne_bytes(),
        (rest >> 32) as u8,
        (rest >> 40) as u8,
    )
}

/// A keyed 64-bit hash of a key (multiply and fold, as wyhash does, but with 64-bit products, which the eBPF target has).
///
/// The seeds keep strangers from choosing keys that collide.
#[inline(always)]
pub fn hash<const K: usize>(key: &[u64; K], seed: u64) -> u64 {
    const M1: u64 = 0xbf58_476d_1ce4_e5b9;
    const M2: u64 = 0xd6e8_feb8_6659_fd93;
    let mut h = seed;
    for (i, word) in key.iter().enumerate() {
        // The last multiplication is another, or what the words before it have in common shows in the tag.
        let (factor, shift) = if i + 1 < K { (M1, 32) } else { (M2, 29) };
        h = (h ^ *word).wrapping_mul(factor);
        h ^= h >> shift;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let key = v4(
            [10, 0, 0, 1],
            40000u16.to_be_bytes(),
            [10, 0, 0, 100],
            80u16.to_be_bytes(),
            6,
            Kind::Template,
        );
        assert_eq!(parts_v4(key), ([10, 0, 0, 1], [0x9c, 0x40], [10, 0, 0, 100], [0, 80], 6, 1));
    }

    /// 100,000 keys into 4096 classes by either half of the hash, and 1024 by what is the tag: nothing beyond seven standard deviations.
    fn assert_spread(key: impl Fn(u32) -> [u64; V4]) {
        let (mut high, mut low, mut tag) = ([0u32; 4096], [0u32; 4096], [0u32; 1024]);
        for i in 0..100_000u32 {
            let h = hash(&key(i), 42);
            high[(h >> 52) as usize] += 1;
            low[(h & 0xfff) as usize] += 1;
            tag[(h & 0x3ff) as usize] += 1;
        }
        let most = |classes: &[u32]| classes.iter().max().copied();
        assert!(most(&high) < Some(60) && most(&low) < Some(60), "{:?}, {:?}", most(&high), most(&low));
        assert!(most(&tag) < Some(167), "{:?}", most(&tag));
    }

    #[test]
    fn hash_spreads_neighbouring_keys() {
        let to = |from: [u8; 4], port: u32| {
            let port = (port as u16).to_be_bytes();
            v4(from, port, [10, 0, 0, 100], 80u16.to_be_bytes(), 6, Kind::Conn)
        };
        // Many ports of few clients, many clients with one port, and some of both.
        assert_spread(|i| to([10, 0, 0, (i / 50_000) as u8], 1024 + i % 50_000));
        assert_spread(|i| to([10, (i >> 16) as u8, (i >> 8) as u8, i as u8], 40_000));
        assert_spread(|i| to([10, 0, 0, (i / 1000) as u8], 1024 + i % 1000 * 7));
    }
}
