//! What a packet socket is to be given of all that comes in: classic BPF programs, so that others' packets cost next to nothing.

use std::net::IpAddr;

use nix::libc::{
    BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
    BPF_MSH, BPF_RET, BPF_RSH, BPF_W,
};
use socket2::SockFilter;
use xlvs_core::wire::ip_protocol;

/// Ports of probes are those with these four highest bits, which are beyond the kernel's own choice of ports.
pub const PORTS: u16 = 0xf;
/// And so many bits more.
pub const PORT_BITS: u32 = 12;

/// Nothing at all.
pub fn nothing() -> [SockFilter; 1] {
    [plain(BPF_RET | BPF_K, 0)]
}

/// IPv4 packets, from their header on, to these addresses: TCP and UDP to probes' ports, and ICMP that something is unreachable.
pub fn of_v4(addresses: &[IpAddr]) -> Vec<SockFilter> {
    let wanted = addresses.iter().filter_map(|addr| match addr {
        IpAddr::V4(addr) => Some(u32::from(*addr)),
        IpAddr::V6(_) => None,
    });
    let mut program = among(16, wanted);
    program.extend([
        // A fragment has no ports, or not all of the packet.
        plain(BPF_LD | BPF_H | BPF_ABS, 6),
        jump(BPF_JSET, 0x1fff, 7, 0),
        plain(BPF_LD | BPF_B | BPF_ABS, 9),
        plain(BPF_LDX | BPF_B | BPF_MSH, 0),
        jump(BPF_JEQ, ip_protocol::TCP.into(), 6, 0),
        jump(BPF_JEQ, ip_protocol::UDP.into(), 5, 0),
        jump(BPF_JEQ, ip_protocol::ICMP.into(), 0, 2),
        plain(BPF_LD | BPF_B | BPF_IND, 0),
        jump(BPF_JEQ, 3, 1, 0),
        plain(BPF_RET | BPF_K, 0),
        plain(BPF_RET | BPF_K, u32::MAX),
        plain(BPF_LD | BPF_H | BPF_IND, 2),
    ]);
    program.extend(is_probes_port());
    program
}

/// The same of IPv6, of addresses with equal last four bytes too.
pub fn of_v6(addresses: &[IpAddr]) -> Vec<SockFilter> {
    let wanted = addresses.iter().filter_map(|addr| match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(u128::from(*addr) as u32),
    });
    let mut program = among(36, wanted);
    program.extend([
        plain(BPF_LD | BPF_B | BPF_ABS, 6),
        jump(BPF_JEQ, ip_protocol::TCP.into(), 6, 0),
        jump(BPF_JEQ, ip_protocol::UDP.into(), 5, 0),
        jump(BPF_JEQ, ip_protocol::ICMPV6.into(), 0, 2),
        plain(BPF_LD | BPF_B | BPF_ABS, 40),
        jump(BPF_JEQ, 1, 1, 0),
        plain(BPF_RET | BPF_K, 0),
        plain(BPF_RET | BPF_K, u32::MAX),
        plain(BPF_LD | BPF_H | BPF_ABS, 42),
    ]);
    program.extend(is_probes_port());
    program
}

/// Goes on where the word at this offset is one of these.
fn among(at: u32, wanted: impl Iterator<Item = u32>) -> Vec<SockFilter> {
    let wanted: Vec<u32> = wanted.collect();
    let mut program = vec![plain(BPF_LD | BPF_W | BPF_ABS, at)];
    for (number, word) in wanted.iter().enumerate() {
        // Over the rest of the list and the refusal at its end.
        let rest = 2 * (wanted.len() - 1 - number) + 1;
        program.extend([jump(BPF_JEQ, *word, 0, 1), plain(BPF_JMP | BPF_JA, rest as u32)]);
    }
    program.push(plain(BPF_RET | BPF_K, 0));
    program
}

fn is_probes_port() -> [SockFilter; 4] {
    [
        plain(BPF_ALU | BPF_RSH | BPF_K, PORT_BITS),
        jump(BPF_JEQ, PORTS.into(), 0, 1),
        plain(BPF_RET | BPF_K, u32::MAX),
        plain(BPF_RET | BPF_K, 0),
    ]
}

fn plain(code: u32, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, k)
}

fn jump(test: u32, k: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new((BPF_JMP | test | BPF_K) as u16, then, otherwise, k)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use socket2::SockRef;

    use super::*;

    /// Does the kernel let a packet through a program?
    fn passes(program: &[SockFilter], packet: &[u8]) -> bool {
        let (from, to) = UnixDatagram::pair().expect("two sockets");
        SockRef::from(&to).attach_filter(program).expect("a program that the kernel takes");
        to.set_nonblocking(true).expect("a setting");
        from.send(packet).expect("it is sent");
        to.recv(&mut [0; 100]).is_ok()
    }

    fn v4(to: u8, protocol: u8, fragment: u8, payload: &[u8]) -> Vec<u8> {
        [&[0x45, 0, 0, 0, 0, 0, 0, fragment, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, to], payload].concat()
    }

    fn v6(to: u16, next: u8, payload: &[u8]) -> Vec<u8> {
        let to = std::net::Ipv6Addr::from(u128::from(to)).octets();
        [&[0x60, 0, 0, 0, 0, 0, next, 64], &[0; 16][..], &to, payload].concat()
    }

    /// To ports 61440, 65535 and 61439.
    const PORTS: [([u8; 4], bool); 3] =
        [([0, 80, 0xf0, 0], true), ([0, 80, 0xff, 0xff], true), ([0xf0, 0, 0xef, 0xff], false)];

    #[test]
    fn only_what_may_be_an_answer_to_a_probe_passes() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.2", "::2", "10.0.0.3", "::3"].map(|addr| addr.parse().expect("an address")).into();
        let (of_v4, of_v6) = (of_v4(&addresses), of_v6(&addresses));
        for (ports, is_probes) in PORTS {
            for protocol in [6, 17, 132] {
                for to in 1..5 {
                    let wanted = is_probes && protocol != 132 && (2..4).contains(&to);
                    assert_eq!(
                        passes(&of_v4, &v4(to, protocol, 0, &ports)),
                        wanted,
                        "{to} {protocol} {ports:?}"
                    );
                    assert_eq!(passes(&of_v6, &v6(to.into(), protocol, &ports)), wanted);
                }
            }
        }
        assert!(!passes(&of_v4, &v4(2, 6, 1, &PORTS[0].0)));
        for kind in [0, 1, 3] {
            assert_eq!(passes(&of_v4, &v4(2, 1, 0, &[kind; 8])), kind == 3);
            assert_eq!(passes(&of_v6, &v6(2, 58, &[kind; 8])), kind == 1);
        }
        assert!(!passes(&of_v4, &v4(5, 1, 0, &[3; 8])));
        assert!(!passes(&nothing(), &v4(2, 6, 0, &PORTS[0].0)));
        assert!(!passes(&super::of_v4(&[]), &v4(2, 6, 0, &PORTS[0].0)));
    }
}
