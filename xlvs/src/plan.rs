//! The way from what there is to what a file says, in words.

use xlvs_model::spec::{Method, Mss, TunnelType};
use xlvs_model::{Change, Model, SchedFlags, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Tunnel};

/// What a plan does, a sentence a change.
pub fn sentences(plan: &[Change], now: &Model) -> Vec<String> {
    plan.iter().map(|change| sentence(change, now)).collect()
}

fn sentence(change: &Change, now: &Model) -> String {
    match change {
        Change::AddService(spec) => format!("add service {}: {}", service(&spec.key), service_words(spec)),
        Change::EditService(spec) => {
            let before = now.service(&spec.key).map(|s| service_words(&s.spec)).unwrap_or_default();
            format!("change service {}: {before} -> {}", service(&spec.key), service_words(spec))
        }
        Change::DeleteService(key) => format!("delete service {}{}", service(key), with_servers(key, now)),
        Change::AddServer(key, spec) => {
            format!("add server {} to {}: {}", server(&spec.key), service(key), server_words(spec))
        }
        Change::EditServer(key, spec) => {
            let before = now.service(key).and_then(|s| s.server(&spec.key));
            let before = before.map(server_words).unwrap_or_default();
            format!(
                "change server {} of {}: {before} -> {}",
                server(&spec.key),
                service(key),
                server_words(spec)
            )
        }
        Change::DeleteServer(key, gone) => format!("delete server {} of {}", server(gone), service(key)),
        Change::SetTimeouts(t) => {
            let b = now.timeouts();
            format!(
                "change timeouts (tcp tcpfin udp): {} {} {} -> {} {} {}",
                b.tcp, b.tcp_fin, b.udp, t.tcp, t.tcp_fin, t.udp
            )
        }
        Change::Tune(tunable, value) => {
            format!("change {}: {} -> {value}", tunable.name(), now.tunables().get(*tunable))
        }
        Change::AddMark(rule) => format!("add mark rule {rule}"),
        Change::DeleteMark(rule) => format!("delete mark rule {rule}"),
        Change::Flush => "delete all services".to_owned(),
        Change::Zero(_) => "set counters to zero".to_owned(),
        Change::StartSync(daemon) => format!("start the {:?} synchronisation daemon", daemon.role),
        Change::StopSync(role) => format!("stop the {role:?} synchronisation daemon"),
    }
}

fn with_servers(key: &ServiceKey, now: &Model) -> String {
    match now.service(key).map_or(0, |s| s.servers.len()) {
        0 => String::new(),
        1 => " with its server".to_owned(),
        n => format!(" with its {n} servers"),
    }
}

/// A service by name.
pub fn service(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, addr, port } => {
            format!("{} {}", protocol.listed(), std::net::SocketAddr::new(*addr, *port))
        }
        ServiceKey::Mark { mark, family } => format!("mark {mark} ({family:?})"),
    }
}

/// A server by name.
pub fn server(key: &ServerKey) -> String {
    std::net::SocketAddr::new(key.addr, key.port).to_string()
}

/// What a service is, in a few words.
pub fn service_words(spec: &ServiceSpec) -> String {
    let mut words = vec![spec.scheduler.name().to_owned()];
    if let Some(persistence) = spec.persistence {
        words.push(format!("persistent {} s", persistence.timeout));
    }
    if spec.netmask != spec.key.family().whole_netmask() {
        words.push(match spec.key.family() {
            xlvs_model::Family::Inet => format!("mask {}", std::net::Ipv4Addr::from(spec.netmask)),
            xlvs_model::Family::Inet6 => format!("prefix {}", spec.netmask),
        });
    }
    words.extend(spec.engine.iter().map(|engine| format!("engine {engine}")));
    if spec.one_packet {
        words.push("one packet a connection".to_owned());
    }
    words.extend(spec.mss.map(|mss| match mss {
        Mss::Auto => "segments that fit".to_owned(),
        Mss::Most(bytes) => format!("segments of at most {bytes} bytes"),
    }));
    let SchedFlags { fallback, port, third } = spec.flags;
    let flags = [(fallback, "flag-1"), (port, "flag-2"), (third, "flag-3")];
    words.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
    words.join(", ")
}

/// How a server is used, in a few words.
pub fn server_words(spec: &ServerSpec) -> String {
    let mut words = method(spec.method, spec.tunnel);
    words += &format!(", weight {}", spec.weight);
    if spec.upper != 0 {
        words += &format!(", at most {} connections", spec.upper);
    }
    if spec.lower != 0 {
        words += &format!(", again below {}", spec.lower);
    }
    words
}

/// How packets are forwarded, in a few words.
pub fn method(method: Method, tunnel: Tunnel) -> String {
    match (method, tunnel.kind) {
        (Method::Masquerade, _) => "NAT".to_owned(),
        (Method::Direct, _) => "direct routing".to_owned(),
        (Method::Local, _) => "local".to_owned(),
        (Method::Tunnel, TunnelType::IpIp) => "tunnel (ipip)".to_owned(),
        (Method::Tunnel, TunnelType::Gue) => {
            format!("tunnel (GUE, port {}, {:?})", tunnel.port, tunnel.checksum)
        }
        (Method::Tunnel, TunnelType::Gre) => format!("tunnel (GRE, {:?})", tunnel.checksum),
    }
}

#[cfg(test)]
mod tests {
    use xlvs_ipvsadm::{System, read_script};
    use xlvs_model::wanted::{desired, in_place};
    use xlvs_model::{Refusal, diff};

    use super::*;

    fn changes(text: &str) -> Vec<Change> {
        let rules = read_script(text.as_bytes(), &System::default()).expect("no mistake");
        rules.into_iter().map(|rule| rule.change).collect()
    }

    fn running(text: &str) -> Model {
        desired(&changes(text), &Model::default()).expect("no refusal")
    }

    fn way(now: &Model, text: &str) -> Vec<String> {
        let wanted = desired(&changes(text), now).expect("no refusal");
        sentences(&diff(now, &in_place(&wanted, now).expect("no refusal")), now)
    }

    const TWO: &str = "--set 100 20 30\n-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.2:80 -m\n\
                       -a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -x 9\n";

    #[test]
    fn what_is_said_again_is_no_change_in_whatever_order() {
        let now = running(TWO);
        assert!(way(&now, TWO).is_empty());
        let turned = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -x 9\n\
                      -a -t 10.0.0.1:80 -r 10.1.0.2:80 -m\n";
        assert!(way(&now, turned).is_empty(), "{:?}", way(&now, turned));
    }

    #[test]
    fn a_way_is_told_in_words() {
        let now = running(TWO);
        let text = "--set 100 20 31\n-A -t 10.0.0.1:80 -s wrr\n-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 3\n\
                    -a -t 10.0.0.1:80 -r 10.1.0.3:80 -g\n";
        let told = [
            "change service TCP 10.0.0.1:80: rr -> wrr",
            "delete server 10.1.0.2:80 of TCP 10.0.0.1:80",
            "change server 10.1.0.1:80 of TCP 10.0.0.1:80: NAT, weight 1, at most 9 connections -> \
             NAT, weight 3",
            "add server 10.1.0.3:80 to TCP 10.0.0.1:80: direct routing, weight 1",
            "change timeouts (tcp tcpfin udp): 100 20 30 -> 100 20 31",
        ];
        assert_eq!(way(&now, text), told);
        assert_eq!(way(&now, ""), ["delete service TCP 10.0.0.1:80 with its 2 servers"]);
    }

    #[test]
    fn the_first_refused_line_is_named() {
        let twice = "-A -t 10.0.0.1:80\n-A -t 10.0.0.1:80\n";
        assert_eq!(desired(&changes(twice), &Model::default()), Err((1, Refusal::Exists)));
    }
}
