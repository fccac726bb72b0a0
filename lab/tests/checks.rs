//! Checks that are no connections: by echo requests, by datagrams, and by files, of servers of both families; checks that go a
//! client's way; and checks of servers that others wrote.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use common::{counts, ruled_by, within};
use xlvs_lab::{Director, HttpServer, Lab, Layout, NameServer, Process, Server};

const ASK: u16 = 7000;
/// Some turns of a check, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service of each family, both servers of which are checked like this.
fn checked(lab: &Lab, check: &str) -> String {
    let service = |vip: IpAddr, of: fn(&Server) -> IpAddr| {
        let servers = lab.servers.iter().map(|server| format!("\"{}\"", SocketAddr::new(of(server), ASK)));
        format!(
            "[[service]]\nudp = \"{}\"\nmethod = \"nat\"\nservers = [{}]\n\
             check = {{ {check}, interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 2 }}\n",
            SocketAddr::new(vip, ASK),
            servers.collect::<Vec<_>>().join(", "),
        )
    };
    let v4 = service(lab.vip(0).into(), |server| server.address.into());
    let v6 = service(lab.layout().vip6(0).into(), |server| server.address6.into());
    format!("interfaces = [\"l0\", \"l1\"]\n{v4}{v6}")
}

/// Servers that `ipvsadm` lists, of both services.
fn listed(director: &Director) -> Result<usize> {
    Ok(director.must("-Ln")?.lines().filter(|line| line.trim_start().starts_with("-> ")).count() - 1)
}

/// Tries it from when all servers, which answer by datagram, are known to be up.
fn tried(
    check: impl FnOnce(&Lab) -> String,
    test: impl FnOnce(&Lab, &mut Director, &mut Vec<NameServer>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 2)?;
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, checked(&lab, &check(&lab))).context("write the file")?;
    let mut names = NameServer::on_all(&lab, ASK)?;
    ruled_by(&lab, &file, |lab, director| {
        let up = |count: usize| {
            let shown = director.shell("xlvs servers")?;
            Ok(shown.out.matches(", up").count() == count)
        };
        within(PATIENCE, "all servers are known to be up", || up(4))?;
        test(lab, director, &mut names)
    })
}

#[test]
fn a_server_that_answers_no_echo_is_out_until_it_does() -> Result<()> {
    let ping = |_: &Lab| "type = \"ping\"".to_owned();
    tried(ping, |lab, director, _| {
        let second = &lab.servers[1].netns;
        for parameter in ["net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"] {
            let before = listed(director)?;
            second.sysctl(parameter, "1")?;
            within(PATIENCE, parameter, || Ok(listed(director)? == before - 1))?;
        }
        for parameter in ["net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"] {
            second.sysctl(parameter, "0")?;
        }
        within(PATIENCE, "it is back", || Ok(listed(director)? == 4))
    })
}

#[test]
fn a_server_that_refuses_datagrams_is_out_until_it_takes_them() -> Result<()> {
    let udp = |_: &Lab| "type = \"udp\", send = \"hi\", answer = \"^rs[12]$\"".to_owned();
    tried(udp, |lab, director, names| {
        drop(names.pop());
        within(PATIENCE, "the second is out", || Ok(listed(director)? == 2))?;
        let shown = director.shell("xlvs servers")?.out;
        ensure!(shown.contains("connection refused"), "{shown}");
        names.push(NameServer::start(&lab.servers[1].netns, "rs2", ASK)?);
        within(PATIENCE, "it is back", || Ok(listed(director)? == 4))
    })
}

#[test]
fn a_file_takes_servers_out_and_brings_them_back() -> Result<()> {
    let flag = |lab: &Lab| lab.directory().join("down");
    tried(
        |lab| format!("type = \"file\", file = \"{}\"", flag(lab).display()),
        |lab, director, _| {
            std::fs::write(flag(lab), "1\n")?;
            within(PATIENCE, "all are out", || Ok(listed(director)? == 0))?;
            std::fs::remove_file(flag(lab))?;
            within(PATIENCE, "all are back", || Ok(listed(director)? == 4))
        },
    )
}

/// A service of each family by this method, whose servers are checked like this: over HTTP where HTTP is served, else as named.
fn served_by(lab: &Lab, method: &str, check: &str) -> String {
    let service = |vip: IpAddr, of: fn(&Server) -> IpAddr| {
        let servers = lab.servers.iter().map(|server| format!("\"{}\"", SocketAddr::new(of(server), ASK)));
        format!(
            "[[service]]\ntcp = \"{}\"\nmethod = \"{method}\"\nservers = [{}]\n\
             check = {{ {check}, interval = \"200ms\", timeout = \"1s\", rise = 1, fall = 2 }}\n",
            SocketAddr::new(vip, ASK),
            servers.collect::<Vec<_>>().join(", "),
        )
    };
    let v4 = service(lab.vip(0).into(), |server| server.address.into());
    let v6 = service(lab.layout().vip6(0).into(), |server| server.address6.into());
    format!("interfaces = [\"l0\", \"l1\"]\n{v4}{v6}")
}

const PLAIN: &str = "type = \"http\", body = \"rs\", via = \"server\"";
const CLIENTS_WAY: &str = "type = \"http\", body = \"rs\"";

/// Answers from a VIP go past the director here; those to the director itself need not.
fn let_the_director_be_near(server: &Server) -> Result<()> {
    server.netns.ip(&["route add 10.1.0.0/24 dev e0 table 100"])?;
    server.netns.ip6(&["route add fd01::/64 dev e0 table 100"])
}

/// Breaks the second server's part of a method, and mends it: only a check that goes a client's way finds out, and nobody sees its
/// connections.
fn found_on_a_clients_way(
    method: &str,
    breaking: impl Fn(&Lab, &Server) -> Result<()>,
    mending: impl Fn(&Lab, &Server) -> Result<()>,
) -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 2)?;
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, served_by(&lab, method, PLAIN)).context("write the file")?;
    let _files = HttpServer::on_all(&lab, ASK)?;
    lab.servers.iter().try_for_each(let_the_director_be_near)?;
    ruled_by(&lab, &file, |lab, director| {
        let up = |count: usize| {
            let shown = director.shell("xlvs servers")?.out;
            Ok(shown.matches(", up").count() == count)
        };
        within(PATIENCE, "all servers are known to be up", || up(4))?;
        let second = &lab.servers[1];
        breaking(lab, second)?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(listed(director)? == 4, "a plain check found it");
        std::fs::write(&file, served_by(lab, method, CLIENTS_WAY)).context("write the file")?;
        director.shell("xlvs reload")?;
        within(PATIENCE, "the second is out of both services", || Ok(listed(director)? == 2))?;
        mending(lab, second)?;
        within(PATIENCE, "it is back in both", || Ok(listed(director)? == 4))?;
        let counts = counts(&director.must("-Ln")?);
        ensure!(counts.iter().all(|(_, active, inactive)| active + inactive == 0), "{counts:?}");
        let listing = director.must("-Ln --stats")?;
        let lines = listing
            .lines()
            .filter(|line| line.contains("->") && line.contains(':') && !line.contains("Remote"));
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            ensure!(words[2..].iter().all(|count| *count == "0"), "a probe was counted: {listing}");
        }
        Ok(())
    })
}

#[test]
fn a_vip_that_is_missing_on_a_server_is_found_on_a_clients_way() -> Result<()> {
    let vips = |lab: &Lab, server: &Server, act: &str| {
        server.netns.ip(&[
            format!("addr {act} {}/32 dev lo", lab.vip(0)),
            format!("addr {act} {}/128 dev lo", lab.layout().vip6(0)),
        ])
    };
    found_on_a_clients_way(
        "dr",
        |lab, server| vips(lab, server, "del"),
        |lab, server| vips(lab, server, "add"),
    )
}

#[test]
fn the_end_of_a_tunnel_that_is_missing_is_found_on_a_clients_way() -> Result<()> {
    found_on_a_clients_way(
        "tun",
        |_, server| server.netns.ip(&["link set e0 xdp off"]),
        |lab, server| {
            server.must("down")?;
            let vips = format!("--vip {},{}", lab.vip(0), lab.layout().vip6(0));
            server.must(&format!("up --mode nat,tun {vips} --gateway 10.1.0.254,fd01::fe")).map(drop)
        },
    )
}

#[test]
fn a_gateway_that_is_not_the_director_is_found_on_a_clients_way() -> Result<()> {
    let gateways = |server: &Server, v4: &str, v6: &str| {
        server.netns.ip(&[format!("route replace default via {v4}")])?;
        server.netns.ip6(&["route del default".to_owned(), format!("route add default via {v6}")])
    };
    found_on_a_clients_way(
        "nat",
        |_, server| gateways(server, "10.1.0.1", "fd01::1"),
        |_, server| gateways(server, "10.1.0.254", "fd01::fe"),
    )
}

/// Debian's programs on a server: nginx with TLS, dnsmasq, and Exim.
fn debians(lab: &Lab, server: &Server) -> Result<[Process; 3]> {
    let name = &server.name;
    let at = |what: &str| lab.directory().join(format!("{name}.{what}")).display().to_string();
    let nginx = format!(
        "daemon off;\nmaster_process off;\npid {};\nerror_log {};\nevents {{}}\nhttp {{\naccess_log off;\nserver {{\n\
         listen 443 ssl http2;\nssl_certificate {dir}/cert.pem;\nssl_certificate_key {dir}/key.pem;\n\
         location / {{ return 200 \"{name}\\n\"; }}\n}}\n}}\n",
        at("nginx.pid"),
        at("nginx.err"),
        dir = lab.directory().display(),
    );
    std::fs::write(at("nginx"), nginx).context("write nginx's file")?;
    // Its processes for connections are another user's.
    std::fs::create_dir_all(at("spool")).context("make a place for mail")?;
    std::fs::set_permissions(at("spool"), std::fs::Permissions::from_mode(0o777))?;
    let exim = format!(
        "primary_hostname = {name}.example\ndaemon_smtp_ports = 25\nlocal_interfaces = 0.0.0.0\nhost_lookup =\n\
         keep_environment =\nspool_directory = {}\nlog_file_path = syslog\n",
        at("spool"),
    );
    std::fs::write(at("exim"), exim).context("write Exim's file")?;
    let start = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        server.netns.spawn(&mut command)
    };
    let names = ["-k", "--conf-file=/dev/null", "--user=root", "--pid-file", "--no-resolv", "--no-hosts"];
    let names = [&names[..], &["--host-record=www.example.com,192.0.2.7"]].concat();
    Ok([
        start("/usr/sbin/nginx", &["-e", &at("nginx.err"), "-c", &at("nginx")])?,
        start("/usr/sbin/dnsmasq", &names)?,
        start("/usr/sbin/exim4", &["-C", &at("exim"), "-bdf", "-oX", "25", "-oP", "/dev/null"])?,
    ])
}

/// A certificate that ends in three days.
fn certify(lab: &Lab) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let mut wanted = rcgen::CertificateParams::new(["www.example.com".to_owned()])?;
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + Duration::from_secs(3 * 86_400);
    wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
    let made = wanted.self_signed(&key)?;
    std::fs::write(lab.directory().join("cert.pem"), made.pem())?;
    std::fs::write(lab.directory().join("key.pem"), key.serialize_pem())?;
    Ok(())
}

#[test]
fn servers_of_debians_are_known_to_be_up_and_missed() -> Result<()> {
    let lab = Lab::lay_out(Layout::TwoNetwork, 2)?;
    certify(&lab)?;
    let service = |at: &str, vip: u8, port: u16, check: &str| {
        let servers = lab.servers.iter().map(|server| format!("\"{}\"", server.address));
        format!(
            "[[service]]\n{at} = \"{}:{port}\"\nmethod = \"nat\"\nservers = [{}]\n\
             check = {{ {check}, interval = \"250ms\", timeout = \"2s\", rise = 1, fall = 2 }}\n",
            lab.vip(vip),
            servers.collect::<Vec<_>>().join(", "),
        )
    };
    let text = [
        "interfaces = [\"l0\", \"l1\"]\n".to_owned(),
        service("tcp", 0, 443, "type = \"https\", sni = \"www.example.com\", body = \"^rs[12]\""),
        service("tcp", 1, 443, "type = \"https\", version = \"2\", body = \"^rs[12]\""),
        service("udp", 0, 53, "type = \"dns\", name = \"www.example.com\", record = \"A\""),
        service("tcp", 0, 25, "type = \"smtp\""),
    ];
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, text.concat()).context("write the file")?;
    let _first = debians(&lab, &lab.servers[0])?;
    let second = debians(&lab, &lab.servers[1])?;
    ruled_by(&lab, &file, |lab, director| {
        let shown = || Ok::<_, anyhow::Error>(director.shell("xlvs servers")?.out);
        within(PATIENCE, "all servers are known to be up", || Ok(shown()?.matches(", up").count() == 8))
            .with_context(|| shown().unwrap_or_default())?;
        let warned = shown()?.matches("; its certificate expires on ").count();
        ensure!(warned == 4, "of {warned} certificates is warned: {}", shown()?);
        let told = director.shell("xlvs watch --no-follow")?.out;
        ensure!(told.contains(": its certificate expires on "), "{told}");
        let top = director.shell("xlvs top --once --width 200")?.out;
        let warned =
            top.lines().filter(|line| line.contains(" up! ") && line.contains("  warning: its certificate"));
        ensure!(warned.count() == 4, "{top}");
        drop(second);
        within(PATIENCE, "the second is out of all services", || Ok(listed(director)? == 4))
            .with_context(|| shown().unwrap_or_default())?;
        let _again = debians(lab, &lab.servers[1])?;
        within(PATIENCE, "it is back in all", || Ok(listed(director)? == 8))
            .with_context(|| shown().unwrap_or_default())
    })
}

/// A gRPC server in Python, with what it says in a file.
const SERVING: &str = include_str!("common/serving.py");

#[test]
fn what_a_grpc_server_says_of_its_services_is_believed() -> Result<()> {
    const IGNORANT: u16 = ASK + 1;
    let lab = Lab::lay_out(Layout::TwoNetwork, 1)?;
    let server = &lab.servers[0];
    let (program, served) = (lab.directory().join("serving.py"), lab.directory().join("served"));
    std::fs::write(&program, SERVING)?;
    std::fs::write(&served, "=1\nshop=1\nclosed=2\n")?;
    let at = |port: u16| SocketAddr::new(server.address.into(), port).to_string();
    let mut python = Command::new("/usr/bin/python3");
    python.arg(&program).arg(&served).args([at(ASK), at(IGNORANT)]);
    let _serving = server.netns.spawn(python.stdin(Stdio::null()).stdout(Stdio::null()))?;

    let service = |number: u8, port: u16, of: &str| {
        format!(
            "[[service]]\ntcp = \"{}:{port}\"\nmethod = \"nat\"\nservers = [\"{}\"]\n\
             check = {{ type = \"grpc\", {of}interval = \"250ms\", timeout = \"2s\", rise = 1, fall = 2 }}\n",
            lab.vip(number),
            at(port),
        )
    };
    let text = [
        "interfaces = [\"l0\", \"l1\"]\n".to_owned(),
        service(0, ASK, ""),
        service(1, ASK, "service = \"shop\", "),
        service(2, ASK, "service = \"closed\", "),
        service(3, ASK, "service = \"none\", "),
        service(4, IGNORANT, ""),
    ];
    let file = lab.directory().join("xlvs.toml");
    std::fs::write(&file, text.concat()).context("write the file")?;
    ruled_by(&lab, &file, |_, director| {
        let shown = || Ok::<_, anyhow::Error>(director.shell("xlvs servers")?.out);
        let told = |what: &str, words: &[&str]| {
            within(PATIENCE, what, || {
                let shown = shown()?;
                Ok(words.iter().all(|word| shown.contains(word)))
            })
            .with_context(|| shown().unwrap_or_default())
        };
        told(
            "what it says is known",
            &["it says NOT_SERVING", "the call ends with NOT_FOUND", "the call ends with UNIMPLEMENTED"],
        )?;
        within(PATIENCE, "what serves is up", || Ok(shown()?.matches(", up").count() == 2))?;
        ensure!(listed(director)? == 2, "{}", director.must("-Ln")?);
        std::fs::write(&served, "=2\nshop=2\nclosed=1\nnone=1\n")?;
        within(PATIENCE, "it says the opposite", || {
            let shown = shown()?;
            Ok(shown.matches("it says NOT_SERVING").count() == 2 && shown.matches(", up").count() == 2)
        })
        .with_context(|| shown().unwrap_or_default())?;
        told("who does not know the protocol is out", &["the call ends with UNIMPLEMENTED"])
    })
}
