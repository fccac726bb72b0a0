//! What the recordings do not show: names, standard input, the other two commands, and a director that is not there.

mod common;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use common::{Director, Done, Names, call, call_with, ipvsadm};
use xlvs_ipvsadm::{Applet, Resolver, Shell, System, Unreachable, completions, help, man_page};
use xlvs_model::spec::{Mss, Protocol};
use xlvs_model::view::ConnView;
use xlvs_model::{Change, ServerKey, ServiceSpec};

fn done(rc: i32, out: &str, err: &str) -> Done {
    Done { rc, out: out.to_owned(), err: err.to_owned() }
}

fn restored(stdin: &str) -> (Director, Done) {
    let mut director = Director::default();
    let done = ipvsadm(&mut director, "-R", stdin);
    (director, done)
}

const TWO: &str = "-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.2:80 -s rr\n";

#[test]
fn what_a_refusal_leaves_of_the_lines_around_it() {
    let (mut director, said) = restored(&format!("{TWO}-A -t 10.0.0.2:80 -s rr\n-A -t 10.0.0.3:80 -s rr\n"));
    assert_eq!(said, done(0, "", "Service already exists\n"), "the last line decides");
    assert_eq!(ipvsadm(&mut director, "-Sn", "").out, format!("{TWO}-A -t 10.0.0.3:80 -s rr\n"));
    let (_, said) = restored(&format!("{TWO}-A -t 10.0.0.2:80 -s rr\n"));
    assert_eq!(said, done(255, "", "Service already exists\n"));
}

#[test]
fn what_a_mistake_leaves_of_the_lines_around_it() {
    for (line, rc, err) in [
        ("-A -t 10.0.0.3:80 -w 1", 2, "Illegal 'weight' option with the 'add-service' command\n"),
        ("bogus", 255, "Try `/sbin/ipvsadm -h' or '/sbin/ipvsadm --help' for more information.\n"),
        ("-R", 255, "Try `/sbin/ipvsadm -h' or '/sbin/ipvsadm --help' for more information.\n"),
        ("-L -t 10.0.0.3:80", 1, "No such service\n"),
    ] {
        let (mut director, said) = restored(&format!("{TWO}{line}\n-A -t 10.0.0.4:80 -s rr\n"));
        assert_eq!(said, done(rc, "", err), "{line}");
        assert_eq!(ipvsadm(&mut director, "-Sn", "").out, TWO, "{line}");
    }
}

#[test]
fn what_rules_have_no_word_for_is_named_beside_them() {
    let (mut director, _) = restored(TWO);
    let spec = director.model.services()[1].spec.clone();
    let spec = ServiceSpec { mss: Some(Mss::Most(1400)), ..spec };
    director.model.apply(&Change::EditService(spec)).unwrap();
    for args in ["-Sn", "-S -n"] {
        let saved = ipvsadm(&mut director, args, "");
        assert_eq!((saved.rc, saved.out.as_str()), (0, TWO));
        let lines: Vec<_> = saved.err.lines().collect();
        assert!(matches!(lines[..], [line] if line.starts_with("-t 10.0.0.2:80: ")), "{}", saved.err);
    }
}

#[test]
fn an_unknown_option_spoils_only_its_line() {
    let (mut director, said) = restored("-A -t 10.0.0.1:80 -k\n-A -t 10.0.0.2:80 -s rr\n");
    assert_eq!(said, done(0, "", "-k: unknown option\n"));
    assert_eq!(ipvsadm(&mut director, "-Sn", "").out, "-A -t 10.0.0.2:80 -s rr\n");
}

#[test]
fn lines_are_words_between_blanks() {
    let (mut director, said) =
        restored("\n ipvsadm  -A\t-t 10.0.0.1:80 ipvsadm -s rr\r\n\nipvsadm\n-A -t 10.0.0.2:80 -s rr");
    assert_eq!(said, done(0, "", ""));
    assert_eq!(ipvsadm(&mut director, "-Sn", "").out, TWO);
    assert_eq!(director.applied, 1, "changes that follow each other are applied together");
    let (_, said) = restored("-A -t \"10.0.0.1:80\"\n");
    assert_eq!(said.err, "illegal virtual server address[:port] specified\n", "there is no quoting");
}

#[test]
fn listings_between_changes_show_what_stood_before_them() {
    let (_, said) =
        restored("-A -t 10.0.0.1:80 -s rr\n-Sn\n-D -t 10.0.0.1:80\n-Sn\n-A -t 10.0.0.2:80 -s rr\n-Sn\n");
    assert_eq!(said, done(0, TWO, ""));
}

#[test]
fn an_unknown_scheduler_is_looked_for_after_the_service() {
    let mut director = Director::default();
    ipvsadm(&mut director, "-A -t 10.0.0.1:80", "");
    for (line, err) in [
        ("-A -t 10.0.0.1:80 -s nosuch", "Service already exists\n"),
        ("-E -t 10.0.0.1:80 -s nosuch", "Scheduler or persistence engine not found\n"),
        ("-A -t 10.0.0.2:80 -s nosuch", "Scheduler or persistence engine not found\n"),
        ("-E -t 10.0.0.2:80 -s nosuch", "No such service\n"),
    ] {
        assert_eq!(ipvsadm(&mut director, line, ""), done(255, "", err), "{line}");
    }
}

#[test]
fn the_two_other_commands() {
    let mut director = Director::default();
    let restore =
        |director: &mut Director, text: &str| call(Applet::Restore, director, vec![], text.as_bytes());
    ipvsadm(&mut director, "-A -t 10.9.9.9:80", "");
    assert_eq!(restore(&mut director, &format!("# saved\n{TWO}")), done(0, "", ""));
    let save = |director: &mut Director, args: &[&str]| {
        call(Applet::Save, director, args.iter().map(OsString::from).collect(), b"")
    };
    assert_eq!(save(&mut director, &["-n"]), done(0, TWO, ""));
    assert_eq!(save(&mut director, &["-n", "-n", "whatever"]), done(0, TWO, ""));
    assert_eq!(save(&mut director, &[]), done(0, &TWO.replace(":80", ":http"), ""));
    let usage = "ipvsadm: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.\n";
    assert_eq!(save(&mut director, &["-x"]), done(1, "", usage));
    assert_eq!(restore(&mut director, ""), done(0, "", ""), "an empty file clears the table");
    assert!(director.model.services().is_empty());
}

#[test]
fn programs_are_known_by_their_name() {
    let of = |name: &str| Applet::of_program(name.as_ref());
    assert_eq!(of("/usr/sbin/ipvsadm"), Some(Applet::Ipvsadm));
    assert_eq!(of("ipvsadm-save"), Some(Applet::Save));
    assert_eq!(of("./ipvsadm-restore"), Some(Applet::Restore));
    assert_eq!(of("/usr/bin/xlvs"), None);
}

#[test]
fn a_director_that_is_not_there() {
    let absent =
        Unreachable::Absent { reason: "nobody answers".into(), advice: "Is `xlvs run` running?".into() };
    let mut director = Director { closed: Some(absent), ..Director::default() };
    let err = "Can't initialize ipvs: nobody answers\nIs `xlvs run` running?\n";
    for line in ["", "-Ln", "-A -t 10.0.0.1:80", "-A bogus", "-R"] {
        assert_eq!(ipvsadm(&mut director, line, "-C\n"), done(2, "", err), "{line}");
    }
    assert_eq!(call(Applet::Restore, &mut director, vec![], b"-C\n"), done(2, "", err));
    assert_eq!(ipvsadm(&mut director, "--version", "").rc, 0, "what needs no director works without one");
    assert_eq!(ipvsadm(&mut director, "-h", "").out, help("/sbin/ipvsadm"));
}

#[test]
fn ten_thousand_services_with_ten_servers_each_are_restored_as_one_change() {
    let mut rules = String::new();
    for n in 0..10_000 {
        let service = format!("-t 10.1.{}.{}:80", n / 250, n % 250);
        rules += &format!("-A {service} -s wlc\n");
        for server in 1..=10 {
            rules += &format!("-a {service} -r 10.2.0.{server}:80 -m -w 1\n");
        }
    }
    let began = Instant::now();
    let (director, said) = restored(&rules);
    assert_eq!(said, done(0, "", ""));
    assert_eq!((director.applied, director.model.services().len()), (1, 10_000));
    // An optimised build takes a fraction of a second; this one is not optimised and the machine may be busy.
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
}

/// Hosts with long names.
struct Hosts;

impl Resolver for Hosts {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "web.example.net").then(|| Ipv4Addr::new(10, 0, 0, 1))
    }
    fn host_name(&self, addr: IpAddr) -> Option<String> {
        let number = addr.to_string().replace(['.', ':'], "-");
        (number != "10-0-0-1").then(|| format!("a-very-long-host-name-that-does-not-fit.example-{number}"))
    }
    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        Names::new().service_port(name, protocol)
    }
    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        Names::new().service_name(port, protocol)
    }
}

fn with_hosts(director: &mut Director, line: &str) -> Done {
    let args = line.split_whitespace().map(OsString::from).collect();
    call_with(&Hosts, Applet::Ipvsadm, director, args, &mut &b""[..])
}

#[test]
fn long_names_are_cut_off_in_listings_and_whole_in_rules() {
    let mut director = Director::default();
    for line in [
        "-A -t web.example.net:http -s rr",
        "-a -t web.example.net:http -r 10.1.0.1:www -m",
        "-a -t web.example.net:http -r fd01::1 -i",
        "-A -t 10.0.0.2:80 -s rr",
        "-A -f 5 -s rr",
        "-a -f 5 -r 10.1.0.1:80 -m",
    ] {
        assert_eq!(with_hosts(&mut director, line), done(0, "", ""), "{line}");
    }
    let listed = with_hosts(&mut director, "-L").out;
    let lines: Vec<_> = listed.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "TCP  10.0.0.1:http rr",
            "  -> [a-very-long-host-name-that-does-not-fit.example-fd01--1]:h Tunnel  1      0          0         ",
            "  -> a-very-long-host-name-that-d Masq    1      0          0         ",
            "TCP  a-very-long-host-name-that-d rr",
            "FWM  5 rr",
            "  -> a-very-long-host-name-that-d Masq    1      0          0         ",
        ]
    );
    let rule = "-a -f 5 -r a-very-long-host-name-that-does-not-fit.example-10-1-0-1:80 -m -w 1";
    assert_eq!(with_hosts(&mut director, "-S").out.lines().last(), Some(rule));
}

#[test]
fn the_engines_data_is_listed_on_request() {
    let at = |text: &str| text.parse().expect("an address");
    let call = ConnView {
        protocol: 17,
        expires_ms: 360_999,
        state: "UDP".into(),
        client: at("10.0.0.1:0"),
        virt: at("10.0.0.100:5060"),
        dest: at("10.1.0.11:5060"),
        engine: Some("sip".into()),
        engine_data: Some("abcdef@1.2.3.4".into()),
    };
    let hours = ConnView { expires_ms: 7_199_000, engine: None, engine_data: None, ..call.clone() };
    let mut director = Director { connections: vec![call, hours], ..Director::default() };
    let usual = "UDP 06:00  UDP         10.0.0.1:0         10.0.0.100:5060    10.1.0.11:5060\n\
                 UDP 119:59 UDP         10.0.0.1:0         10.0.0.100:5060    10.1.0.11:5060\n";
    let head =
        "IPVS connection entries\npro expire state       source             virtual            destination";
    assert_eq!(ipvsadm(&mut director, "-Lnc", "").out, format!("{head}\n{usual}"));
    let with_data = usual.replacen("5060\n", "5060   sip                abcdef@1.2.3.4\n", 1);
    let head = format!("{head}        pe name          pe_data");
    assert_eq!(ipvsadm(&mut director, "-Lnc --persistent-conn", "").out, format!("{head}\n{with_data}"));
}

#[test]
fn ports_are_settled_by_the_command_not_by_the_director() {
    let mut director = Director::default();
    ipvsadm(&mut director, "-A -t 10.0.0.1:80", "");
    for (line, port) in [
        ("-a -t 10.0.0.1:80 -r 10.1.0.1:81 -g", 80),
        ("-a -t 10.0.0.1:80 -r 10.1.0.2:81 -m", 81),
        ("-a -r 10.1.0.3 -t 10.0.0.1:80 -m", 0),
    ] {
        assert_eq!(ipvsadm(&mut director, line, ""), done(0, "", ""), "{line}");
        let server = director.model.services()[0].servers.last().expect("a server");
        assert_eq!(server.key.port, port, "{line}");
    }
    // A server to delete is meant as it is written, whatever its method.
    assert_eq!(ipvsadm(&mut director, "-d -t 10.0.0.1:80 -r 10.1.0.1:81", "").err, "No such destination\n");
    assert_eq!(ipvsadm(&mut director, "-d -t 10.0.0.1:80 -r 10.1.0.1", ""), done(0, "", ""));
    let gone = ServerKey { addr: Ipv4Addr::new(10, 1, 0, 1).into(), port: 80 };
    assert_eq!(director.model.services()[0].server(&gone), None);
}

#[test]
fn the_systems_services_are_those_of_its_file() {
    let text = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let http = text.lines().any(|line| line.split_whitespace().take(2).eq(["http", "80/tcp"]));
    assert_eq!(System::default().service_port("http", Protocol::Tcp), http.then_some(80));
    assert_eq!(System::default().service_port("no such service", Protocol::Tcp), None);
}

#[test]
fn a_plan_can_be_made_of_what_a_file_says() {
    let (director, _) = restored(TWO);
    let plan = xlvs_model::diff(&xlvs_model::Model::default(), &director.model);
    assert!(matches!(plan[..], [Change::AddService(_), Change::AddService(_)]));
}

#[test]
fn every_word_is_in_the_manual_and_in_the_completions() {
    let manual = man_page();
    assert!(manual.starts_with(".TH IPVSADM 8 "));
    let shells = ["bash", "zsh", "fish"].map(|name| completions(Shell::of_name(name).expect("a shell")));
    for row in xlvs_ipvsadm::table::rows() {
        let long = format!("--{}", row.long);
        assert!(manual.contains(&long.replace('-', "\\-")), "{long}");
        assert!(!row.manual.is_empty(), "{long}");
        assert!(shells[0].contains(&long) && shells[1].contains(&long), "{long}");
        assert!(shells[2].contains(&format!("-l {}", row.long)), "{long}");
    }
    assert_eq!(
        manual.lines().filter(|line| line.starts_with('\'')).count(),
        0,
        "roff would take it for a request"
    );
}
