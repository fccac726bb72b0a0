//! The order of listings.
//!
//! The original compares 32-bit numbers by the sign of their difference, which is right only for numbers less than 2^31
//! apart: 200.0.0.1 stands before 10.0.0.1, but after 100.0.0.1. Since such an order has circles, what comes out depends
//! on how it is sorted: by merging, here and there.

use std::cmp::Ordering;
use std::net::IpAddr;

use xlvs_model::view::{ServerView, ServiceView};
use xlvs_model::{Family, ServiceKey};

/// Sorts services: addresses before marks, IPv4 before IPv6, then by protocol, address and port.
pub(crate) fn sort_services(services: &mut Vec<ServiceView>) {
    merge_sort(services, compare_services);
}

/// Sorts servers by address and port.
pub(crate) fn sort_servers(servers: &mut Vec<ServerView>) {
    merge_sort(servers, compare_servers);
}

fn compare_services(a: &ServiceView, b: &ServiceView) -> Ordering {
    let (a, b) = (Place::of(&a.spec.key), Place::of(&b.spec.key));
    by_difference(a.mark, b.mark)
        .then(a.family.cmp(&b.family))
        .then(a.protocol.cmp(&b.protocol))
        .then_with(|| by_words(a.addr, b.addr))
        .then(a.port.cmp(&b.port))
}

fn compare_servers(a: &ServerView, b: &ServerView) -> Ordering {
    by_words(words(a.spec.key.addr), words(b.spec.key.addr)).then(a.spec.key.port.cmp(&b.spec.key.port))
}

struct Place {
    mark: u32,
    family: Family,
    protocol: u8,
    addr: [u32; 4],
    port: u16,
}

impl Place {
    fn of(key: &ServiceKey) -> Self {
        match *key {
            ServiceKey::Address { protocol, addr, port } => {
                Self { mark: 0, family: key.family(), protocol: protocol as u8, addr: words(addr), port }
            }
            ServiceKey::Mark { mark, family } => Self { mark, family, protocol: 0, addr: [0; 4], port: 0 },
        }
    }
}

/// An address as four numbers; an IPv4 address is the first.
fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(v4) => [v4.to_bits(), 0, 0, 0],
        IpAddr::V6(v6) => [96, 64, 32, 0].map(|shift| (v6.to_bits() >> shift) as u32),
    }
}

fn by_words(a: [u32; 4], b: [u32; 4]) -> Ordering {
    let mut differing = a.into_iter().zip(b).map(|(a, b)| by_difference(a, b));
    differing.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn by_difference(a: u32, b: u32) -> Ordering {
    (a.wrapping_sub(b) as i32).cmp(&0)
}

/// Merge sort from the top, as C libraries have it. The standard library's sort may panic over an order with circles.
fn merge_sort<T>(list: &mut Vec<T>, compare: fn(&T, &T) -> Ordering) {
    if list.len() < 2 {
        return;
    }
    let mut right = list.split_off(list.len() / 2);
    let mut left = std::mem::take(list);
    merge_sort(&mut left, compare);
    merge_sort(&mut right, compare);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(a, b).is_le() { left.next() } else { right.next() };
        list.extend(next);
    }
    list.extend(left);
    list.extend(right);
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{compare_servers, merge_sort};
    use xlvs_model::spec::{Method, ServerKey, ServerSpec};
    use xlvs_model::view::ServerView;

    #[track_caller]
    fn sorts(added: &[&str], listed: &[&str]) {
        let addr = |text: &str| text.parse::<IpAddr>().expect("an address");
        let view = |text: &&str| {
            ServerView::from(&ServerSpec::new(ServerKey { addr: addr(text), port: 80 }, Method::Tunnel))
        };
        let mut servers: Vec<_> = added.iter().map(view).collect();
        merge_sort(&mut servers, compare_servers);
        let sorted: Vec<_> = servers.iter().map(|server| server.spec.key.addr).collect();
        assert_eq!(sorted, listed.iter().map(|text| addr(text)).collect::<Vec<_>>());
    }

    #[test]
    fn addresses_far_apart_stand_the_wrong_way_round() {
        sorts(
            &["10.0.0.1", "200.0.0.1", "120.0.0.1", "250.0.0.1"],
            &["200.0.0.1", "250.0.0.1", "10.0.0.1", "120.0.0.1"],
        );
        sorts(
            &["200.0.0.1", "10.0.0.1", "137.255.255.255", "138.0.0.1", "138.0.0.2"],
            &["137.255.255.255", "138.0.0.1", "138.0.0.2", "200.0.0.1", "10.0.0.1"],
        );
    }

    #[test]
    fn families_are_compared_by_their_first_number() {
        sorts(
            &["::1", "fd01::1", "10.1.1.1", "fe01:aaaa::1111"],
            &["fd01::1", "fe01:aaaa::1111", "::1", "10.1.1.1"],
        );
    }
}
