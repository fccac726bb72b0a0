//! Who on a device's network answers for an address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};

use crate::frames::{Mac, frames_of, link, link_local, received};
use crate::{arp, nd};

/// Answers may take this long.
const PATIENCE: Duration = Duration::from_millis(400);
/// Each question is asked so often: one may be lost.
const TIMES: usize = 2;
/// Between two looks at what has come.
const PAUSE: Duration = Duration::from_millis(5);

/// Who answers for each of these addresses, asked by ARP or by neighbour discovery. This host hears nothing of itself, and a device that
/// does not speak IPv6 is not asked by it.
pub fn who_has(device: &str, targets: &[IpAddr]) -> io::Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
    let (link, mac) = link(device)?;
    let local = link_local(device)?;
    let question = |target: &IpAddr| match target {
        IpAddr::V4(target) => Some(arp::question(mac, *target)),
        IpAddr::V6(target) => Some(nd::question(mac, local?, *target)),
    };
    let questions: Vec<_> = targets.iter().filter_map(question).collect();
    let socket = frames_of(Some(&link))?;
    let mut answers = BTreeMap::<_, BTreeSet<_>>::new();
    for _ in 0..TIMES {
        for question in &questions {
            send(socket.as_raw_fd(), question, MsgFlags::empty())?;
        }
        let deadline = Instant::now() + PATIENCE / TIMES as u32;
        while Instant::now() < deadline {
            for (sender, mac) in received(&socket)?.iter().filter_map(|frame| answer(frame)) {
                if targets.contains(&sender) {
                    answers.entry(sender).or_default().insert(mac);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(answers)
}

fn answer(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let v4 = || arp::answer(frame).map(|(sender, mac)| (IpAddr::V4(sender), mac));
    v4().or_else(|| nd::answer(frame).map(|(sender, mac)| (IpAddr::V6(sender), mac)))
}
