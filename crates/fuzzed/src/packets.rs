//! Makes packets of choices: right ones for the most part, since of others little is looked at.

use etherparse::checksum::Sum16BitWords;

use crate::input::Input;

/// A packet's ends, of both families: an IPv6 address ends like the IPv4 one.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub v6: bool,
    pub from: [u8; 4],
    pub to: [u8; 4],
    pub ports: (u16, u16),
}

impl Ends {
    /// The other way.
    pub fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, ports: (self.ports.1, self.ports.0), ..self }
    }
}

/// The IPv6 address beside an IPv4 one.
pub fn beside([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// A frame of an IP packet.
pub fn frame(v6: bool, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1], &kind[..], packet].concat()
}

/// An IP packet with this transport inside, whose checksum is at this place; with choices of everything else.
pub fn ip(
    input: &mut Input<'_>,
    ends: &Ends,
    protocol: u8,
    mut l4: Vec<u8>,
    sum_at: Option<usize>,
) -> Vec<u8> {
    let odd = input.byte();
    let ttl = if odd & 7 == 7 { input.below(3) } else { 64 };
    let class = if odd & 8 != 0 { input.byte() } else { 0 };
    if let Some(at) = sum_at.filter(|_| odd & 0x30 != 0x30) {
        put_sum(ends, protocol, &mut l4, at);
    }
    if ends.v6 {
        let extensions = if odd & 0xc0 == 0xc0 { extensions(input, protocol) } else { (protocol, vec![]) };
        let length = (extensions.1.len() + l4.len()) as u16;
        let mut ip = vec![0x60 | class >> 4, class << 4, 0, 0];
        ip.extend(length.to_be_bytes());
        ip.extend([extensions.0, ttl]);
        ip.extend(beside(ends.from));
        ip.extend(beside(ends.to));
        return [ip, extensions.1, l4].concat();
    }
    let options = if odd & 0xc0 == 0xc0 { input.take(usize::from(odd & 8) + 4).to_vec() } else { vec![] };
    let options = [&options[..], &[0; 12][..options.len().next_multiple_of(4) - options.len()]].concat();
    let header = 20 + options.len();
    let mut ip = vec![0x40 | (header / 4) as u8, class];
    ip.extend(((header + l4.len()) as u16).to_be_bytes());
    let fragment: [u8; 2] = if odd & 0x40 != 0 { [0x40, 0] } else { [0, 0] };
    ip.extend([0x12, 0x34, fragment[0], fragment[1], ttl, protocol, 0, 0]);
    ip.extend(ends.from);
    ip.extend(ends.to);
    ip.extend(options);
    let sum = crate::look::sum_of(&ip);
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    [ip, l4].concat()
}

/// Extension headers in front of this protocol: the first one's number, and their bytes.
fn extensions(input: &mut Input<'_>, protocol: u8) -> (u8, Vec<u8>) {
    let numbers: Vec<u8> = (0..1 + input.below(5)).map(|_| input.of(&[0, 43, 60, 60, 44])).collect();
    let mut bytes = Vec::new();
    for (i, number) in numbers.iter().enumerate() {
        let next = numbers.get(i + 1).copied().unwrap_or(protocol);
        let units = if *number == 44 { 0 } else { input.below(3) };
        bytes.extend([next, units, 0, 0, 0, 0, 0, 0]);
        bytes.extend(vec![0; usize::from(units) * 8]);
    }
    (numbers[0], bytes)
}

fn put_sum(ends: &Ends, protocol: u8, l4: &mut [u8], at: usize) {
    let mut sum = Sum16BitWords::new().add_slice(l4);
    let length = (l4.len() as u32).to_be_bytes();
    if ends.v6 {
        sum = sum.add_16bytes(beside(ends.from)).add_16bytes(beside(ends.to));
        sum = sum.add_4bytes(length).add_2bytes([0, protocol]);
    } else if protocol != 1 {
        sum = sum.add_4bytes(ends.from);
        sum = sum.add_4bytes(ends.to).add_4bytes(length).add_2bytes([0, protocol]);
    }
    let sum = if protocol == 17 { sum.to_ones_complement_with_no_zero() } else { sum.ones_complement() };
    l4[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}

/// A transport header with a payload, and where its checksum is.
pub fn transport(input: &mut Input<'_>, ports: (u16, u16), protocol: u8) -> (Vec<u8>, Option<usize>) {
    let mut l4 = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let sum_at = match protocol {
        6 => {
            let flags = input.of(&[0x02, 0x10, 0x12, 0x18, 0x11, 0x04, 0x00]);
            l4.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
            Some(16)
        }
        132 => {
            let chunk = input.of(&[1, 0, 2, 10, 11, 6, 7, 8, 14]);
            l4.extend([1, 2, 3, 4, 0, 0, 0, 0, chunk, 0, 0, 8]);
            None
        }
        _ => {
            l4.extend([0, 0, 0, 0]);
            (protocol == 17).then_some(6)
        }
    };
    let length = usize::from(input.byte());
    l4.extend(input.take(length));
    if protocol == 17 {
        let length = l4.len() as u16;
        l4[4..6].copy_from_slice(&length.to_be_bytes());
        if input.one_in(4) {
            return (l4, None);
        }
    }
    (l4, sum_at)
}

/// Does something wrong to a frame, now and then.
pub fn spoil(input: &mut Input<'_>, frame: &mut Vec<u8>) {
    match input.byte() {
        0xf0..=0xf3 => {
            let to = usize::from(input.word()) % (frame.len() + 1);
            frame.truncate(to.max(14));
        }
        0xf4..=0xf7 => frame.extend(vec![0; usize::from(input.below(40))]),
        0xf8..=0xff => {
            for _ in 0..1 + input.below(3) {
                let at = usize::from(input.word()) % frame.len();
                frame[at] = input.byte();
            }
        }
        _ => {}
    }
}
