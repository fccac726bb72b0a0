//! Maglev hashing: one server for each client address (with `mh-port`: address and port), and when servers come and go, almost
//! all clients keep theirs. For caches, and for several directors that must agree without talking.
//!
//! The table has 4093 slots. Every server has its own permutation of them, drawn from its address and port; the servers,
//! in the kernel's order, take in turn as many of their next free slots as their weight allows. With three servers
//! 10.0.0.1 to 3:80 of weight 1 the slots are shared 1364, 1364, 1365, and 192.0.2.10 falls into slot 403, the second's.
//!
//! Turns follow from the *last weight that was not 0*: weight 0 takes no slot away, the server's clients are only refused
//! (or, with `mh-fallback`, sent elsewhere), and get it back when it is back.

use crate::carried::Carried;
use crate::env::{Env, Step};
use crate::sched::Question;
use crate::sched::choices::{self, NOBODY};
use crate::service::{Service, flag};

#[cfg(not(target_arch = "bpf"))]
use crate::sched::choices::{Choices, Listed};
#[cfg(not(target_arch = "bpf"))]
use crate::sched::weights::common_divisor;

/// Slots of the table: a prime, so that every step goes through all of them.
pub(super) const SLOTS: usize = 4093;

const PRIME: u32 = SLOTS as u32;

/// The hash's key for places.
const PLACE: u64 = 2_654_435_761;
/// The hash's key for the steps of a permutation.
#[cfg(not(target_arch = "bpf"))]
const STEP: u64 = 2_654_446_892;

/// The client's server.
#[inline(always)]
pub fn pick<E: Env>(env: &E, service: &Service, question: &Question) -> Option<u32> {
    serve(env, service, question.client_as_hashed(service))
}

#[inline(never)]
fn serve<E: Env>(env: &E, service: &Service, client: u32) -> Option<u32> {
    let first = hash(client, PLACE) % PRIME;
    let server = choices::at(env, service, first)?;
    if choices::is_usable(env, server) {
        return Some(server);
    }
    if !service.has(flag::FALLBACK) || server == NOBODY {
        return None;
    }
    let mut fallback =
        Fallback { env, table: service.table.load(), client, first, server: Carried::new(NOBODY) };
    env.repeat(PRIME, &mut fallback);
    let server = fallback.server.get();
    (server != NOBODY).then_some(server)
}

/// Hashes the client anew for each attempt.
struct Fallback<'e, E> {
    env: &'e E,
    table: u32,
    client: u32,
    first: u32,
    server: Carried<u32>,
}

impl<E: Env> Step for Fallback<'_, E> {
    #[inline(always)]
    fn turn(&mut self, i: u32) -> bool {
        let offset = i.wrapping_add(self.first) % PRIME;
        let slot = hash(self.client.wrapping_add(offset), PLACE) % PRIME;
        match choices::number(self.env, self.table, slot) {
            Some(server) if choices::is_usable(self.env, server) => {
                self.server.set(server);
                false
            }
            Some(server) => server != NOBODY,
            None => false,
        }
    }
}

/// SipHash-1-3 of one 32-bit number, both key words alike, the lower half: the kernel's `hsiphash` on 64-bit machines.
///
/// Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.
#[inline(always)]
fn hash(number: u32, key: u64) -> u32 {
    let message = number as u64 | 4 << 56;
    let mut v = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573 ^ message,
    ];
    round(&mut v);
    v[0] ^= message;
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    half_round(v, [0, 1, 2, 3], [13, 16]);
    half_round(v, [2, 1, 0, 3], [17, 21]);
}

/// Half a round on the words in this order.
#[inline(always)]
fn half_round(v: &mut [u64; 4], [a, b, c, d]: [usize; 4], [near, far]: [u32; 2]) {
    v[a] = v[a].wrapping_add(v[b]);
    v[b] = v[b].rotate_left(near) ^ v[a];
    v[a] = v[a].rotate_left(32);
    v[c] = v[c].wrapping_add(v[d]);
    v[d] = v[d].rotate_left(far) ^ v[c];
}

/// Fills the table.
#[cfg(not(target_arch = "bpf"))]
pub(super) fn fill(servers: &[Listed], table: &[Choices]) {
    (0..SLOTS).for_each(|slot| choices::write(table, slot, NOBODY));
    let divisor = common_divisor(servers.iter().map(|s| s.last_weight));
    if divisor == 0 {
        return;
    }
    let shift = shift_of(servers.iter().map(|s| s.last_weight / divisor).max().unwrap_or(0));
    let mut places = [0u32; SLOTS];
    for (place, server) in places.iter_mut().zip(servers) {
        *place = hash(identity(server), PLACE) % PRIME;
    }
    let mut taken = [false; SLOTS];
    let mut left = SLOTS;
    loop {
        for (place, server) in places.iter_mut().zip(servers) {
            let step = hash(identity(server), STEP) % (PRIME - 1) + 1;
            for _ in 0..turns_of(server.last_weight / divisor, shift) {
                if left == 0 {
                    return;
                }
                while taken[*place as usize] {
                    *place = (*place + step) % PRIME;
                }
                taken[*place as usize] = true;
                choices::write(table, *place as usize, server.id);
                left -= 1;
            }
        }
    }
}

/// What a server is hashed by.
#[cfg(not(target_arch = "bpf"))]
const fn identity(server: &Listed) -> u32 {
    server.address.wrapping_add(server.port as u32)
}

/// How far weights are shifted down so that the largest leaves room for others: to six bits, half the bits of a slot's number.
#[cfg(not(target_arch = "bpf"))]
const fn shift_of(largest: u32) -> u32 {
    (u32::BITS - largest.leading_zeros()).saturating_sub(6)
}

#[cfg(not(target_arch = "bpf"))]
fn turns_of(weight: u32, shift: u32) -> u32 {
    if weight == 0 { 0 } else { (weight >> shift).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(addr: [u8; 4]) -> u32 {
        u32::from_be_bytes(addr).wrapping_add(80)
    }

    #[test]
    fn permutations_are_the_kernels() {
        let drawn = |addr| {
            let identity = server(addr);
            (hash(identity, PLACE) % PRIME, hash(identity, STEP) % (PRIME - 1) + 1)
        };
        assert_eq!(drawn([10, 0, 0, 3]), (1631, 3453));
        assert_eq!(drawn([10, 0, 0, 2]), (1231, 3544));
        assert_eq!(drawn([10, 0, 0, 1]), (3167, 700));
    }

    #[test]
    fn clients_fall_into_the_kernels_slots() {
        let slot = |last| hash(u32::from_be_bytes([192, 0, 2, last]), PLACE) % PRIME;
        assert_eq!([10, 11, 12, 13].map(slot), [403, 3967, 1550, 2988]);
    }
}
