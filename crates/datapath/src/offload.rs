//! What an interface does to frames before the director sees them.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc::{self, c_char, ifreq};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GFLAGS` of `linux/ethtool.h`: asks for these flags.
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const TAKES_TAGS: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Flags {
    question: u32,
    answer: u32,
}

/// Does an interface take VLAN tags out of the frames that come in (`rx-vlan-offload`)? XDP sees such frames without them.
pub fn takes_tags_out(interface: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut flags = Flags { question: GET_FLAGS, answer: 0 };
    // SAFETY: integers and a pointer, of which all may be zero.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut flags).cast();
    // SAFETY: the request and what it points to live through the call, and have the shape that the question says.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags.answer & TAKES_TAGS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_leaves_frames_as_they_are() {
        assert!(!takes_tags_out("lo").expect("there is a loopback"));
        assert!(takes_tags_out("no-such-device").is_err());
        assert!(takes_tags_out("a-name-that-no-device-has").is_err());
    }
}
