//! What of scheduling the verifier looks at by itself.
//!
//! A function that is visible from outside and takes only numbers is verified once, for any numbers, instead of once for
//! every way that leads to it. Without that the ways through the connection table multiply with those through fourteen
//! schedulers, and the verifier gives up.

use xlvs_core::conn::key;
use xlvs_core::family;
use xlvs_core::persist;
use xlvs_core::sched::{self, Question};
use xlvs_core::wire::AddrV6;

use crate::env::KernelEnv;

/// [`Question`] in numbers: service and client's port, client and destination folded, and the destination's two words.
pub type Asked = [u64; 4];

/// A question in numbers.
#[inline(always)]
pub fn question_in_numbers(question: &Question) -> Asked {
    [
        question.service as u64 | (question.client_port as u64) << 32,
        question.client as u64 | (question.dest as u64) << 32,
        question.dest_words[0],
        question.dest_words[1],
    ]
}

/// [`sched::choose`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_choose(service_port: u64, client_dest: u64, dest_low: u64, dest_high: u64) -> u64 {
    let question = Question {
        service: service_port as u32,
        client: client_dest as u32,
        client_port: (service_port >> 32) as u16,
        dest: (client_dest >> 32) as u32,
        dest_words: [dest_low, dest_high],
    };
    sched::choose(&KernelEnv::without_packet(), &question).0
}

/// [`sched::wlc::choose`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_choose_by_wlc(service: u64) -> u64 {
    sched::wlc::choose(&KernelEnv::without_packet(), service as u32).0
}

/// [`sched::remember`]. The number that it returns means nothing: such functions must return one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_remember(service: u64, dest_low: u64, dest_high: u64, server: u64) -> u64 {
    let dest_words = [dest_low, dest_high];
    let question = Question { service: service as u32, client: 0, client_port: 0, dest: 0, dest_words };
    sched::remember(&KernelEnv::without_packet(), &question, server as u32);
    0
}

/// [`persist::Asked`] in numbers: addresses; service, port and protocol.
#[inline(always)]
pub fn template_v4(asked: &persist::Asked<[u8; 4]>) -> [u64; 2] {
    let addresses = u32::from_ne_bytes(asked.client) as u64 | (u32::from_ne_bytes(asked.vip) as u64) << 32;
    [addresses, service_port(asked)]
}

/// The same for IPv6.
#[inline(always)]
pub fn template_v6(asked: &persist::Asked<AddrV6>) -> [u64; 5] {
    let ([a, b], [c, d]) = (asked.client.0, asked.vip.0);
    [a, b, c, d, service_port(asked)]
}

#[inline(always)]
fn service_port<A>(asked: &persist::Asked<A>) -> u64 {
    asked.service as u64 | (u16::from_ne_bytes(asked.port) as u64) << 32 | (asked.protocol as u64) << 48
}

#[inline(always)]
fn asked<A>(client: A, vip: A, service_port: u64) -> persist::Asked<A> {
    persist::Asked {
        service: service_port as u32,
        client,
        vip,
        port: ((service_port >> 32) as u16).to_ne_bytes(),
        protocol: (service_port >> 48) as u8,
    }
}

/// [`persist::find`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_find_template_v4(addresses: u64, service_port: u64) -> u64 {
    let (client, vip) = ((addresses as u32).to_ne_bytes(), ((addresses >> 32) as u32).to_ne_bytes());
    let asked = asked(client, vip, service_port);
    persist::find::<family::V4, _, { key::V4 }>(&KernelEnv::without_packet(), &asked).0
}

/// [`persist::find`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xlvs_find_template_v6(
    client_first: u64,
    client_second: u64,
    vip_first: u64,
    vip_second: u64,
    service_port: u64,
) -> u64 {
    let asked = asked(AddrV6([client_first, client_second]), AddrV6([vip_first, vip_second]), service_port);
    persist::find::<family::V6, _, { key::V6 }>(&KernelEnv::without_packet(), &asked).0
}
