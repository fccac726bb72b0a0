//! What `xlvs.toml` takes, what is said about what it does not take, and that a written file reads back equal.

mod any;

use std::path::Path;

use any::any_config;
use proptest::prelude::*;
use xlvs_model::config::Config;
use xlvs_model::spec::{Method, Mss, Scheduler};
use xlvs_model::wanted::{desired, in_place, with_segments_of};
use xlvs_model::watch::{CheckKind, Watch};
use xlvs_model::{Change, Model, ServiceKey, ServiceSpec, diff};

fn read(text: &str) -> Config {
    Config::read(text).unwrap_or_else(|mistakes| panic!("{}", mistakes.in_file("xlvs.toml")))
}

/// A file and what is said of it.
struct Case<'t> {
    title: &'t str,
    file: String,
    said: String,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let blocks = text.split("\n## ").skip(1);
    let case = |block| {
        let (title, rest): (&str, &str) =
            str::split_once(block, '\n').expect("a case has a title and a file");
        let (said, file): (Vec<&str>, Vec<&str>) =
            rest.trim_end().lines().partition(|line| line.starts_with(">> "));
        let said: Vec<&str> = said.iter().map(|line| &line[3..]).collect();
        Case { title, file: file.join("\n") + "\n", said: said.join("\n") }
    };
    blocks.map(case).collect()
}

fn said_of(file: &str) -> String {
    Config::read(file).map_or_else(|mistakes| mistakes.in_file("xlvs.toml"), |_| "nothing".to_owned())
}

#[test]
fn mistakes_are_told_with_their_place_and_the_right_word() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes.txt");
    let text = std::fs::read_to_string(&path).expect("the cases");
    let cases = cases(&text);
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    if std::env::var_os("XLVS_BLESS").is_some() {
        let mut blessed = text.split("\n## ").next().expect("a head").to_owned();
        for case in &cases {
            let said = said_of(&case.file).replace('\n', "\n>> ");
            blessed += &format!("\n## {}\n{}>> {said}\n", case.title, case.file);
        }
        std::fs::write(&path, blessed).expect("write the cases");
        return;
    }
    for case in &cases {
        assert_eq!(said_of(&case.file), case.said, "{}", case.title);
        assert_ne!(case.said, "nothing", "{}", case.title);
    }
}

#[test]
fn addresses_are_written_as_greetings_and_tls_have_them() {
    for check in [
        r#"type = "smtp", helo = "[192.0.2.1]""#,
        r#"type = "smtp", helo = "[IPv6:2001:db8::1]""#,
        r#"type = "https", sni = "2001:db8::1""#,
    ] {
        read(&format!("[check]\nit = {{ {check} }}\n"));
    }
}

#[test]
fn a_service_with_three_servers_and_a_check_takes_a_few_lines() {
    let text = r#"interfaces = ["eth0", "eth1"]

[[service]]
tcp = "192.0.2.10:80"
scheduler = "wlc"
method = "nat"
servers = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"]
check = { type = "http", path = "/health" }
"#;
    assert!(text.lines().count() < 10);
    let config = read(text);
    assert_eq!(config.interfaces, ["eth0", "eth1"]);
    let [service] = config.model.services() else { panic!("one service") };
    assert_eq!((service.spec.scheduler, service.servers.len()), (Scheduler::Wlc, 3));
    assert!(service.servers.iter().all(|s| s.method == Method::Masquerade && s.weight == 1));
    let pool = &config.pools[&service.spec.key];
    for server in &service.servers {
        let Watch { checks, .. } = &pool.servers[&server.key];
        let [check] = &checks[..] else { panic!("one check") };
        assert_eq!(check.port, 8080);
        assert!(matches!(&check.kind, CheckKind::Http(http) if http.path == "/health"));
    }
}

#[test]
fn what_is_said_nearer_counts() {
    let text = r#"
[defaults]
scheduler = "rr"
method = "nat"
check = "web"
alpha = true

[check.web]
type = "http"
interval = "500ms"

[[service]]
tcp = "192.0.2.10:80"
weight = 5
servers = [
    "10.0.0.11",
    { address = "10.0.0.12", weight = 7, check = ["tcp", "web"] },
    { address = "10.0.0.13", method = "dr", check = "none" },
]

[[service]]
udp = "192.0.2.10:53"
scheduler = "sh"
check = "none"
servers = ["10.0.0.11"]
"#;
    let config = read(text);
    let [web, dns] = config.model.services() else { panic!("two services") };
    assert_eq!((web.spec.scheduler, dns.spec.scheduler), (Scheduler::Rr, Scheduler::Sh));
    let weights: Vec<u32> = web.servers.iter().map(|server| server.weight).collect();
    assert_eq!(weights, [5, 7, 5]);
    assert_eq!(web.servers[2].method, Method::Direct);
    let pool = &config.pools[&web.spec.key];
    let checks: Vec<usize> =
        web.servers.iter().map(|s| pool.servers.get(&s.key).map_or(0, |watch| watch.checks.len())).collect();
    assert_eq!(checks, [1, 2, 0]);
    assert!(pool.servers[&web.servers[0].key].alpha);
    assert!(!config.pools.contains_key(&dns.spec.key));
}

#[test]
fn words_of_ipvsadm_keep_what_was_said_of_segments() {
    let now = read("[[service]]\ntcp = \"192.0.2.10:80\"\nmss = 1300\n").model;
    let said = ServiceSpec::new(now.services()[0].spec.key, Scheduler::Rr);
    let kept = with_segments_of(&now, &said);
    assert_eq!((kept.mss, kept.scheduler), (Some(Mss::Most(1300)), Scheduler::Rr));
    let wanted = desired(&[Change::AddService(said.clone())], &now).expect("no refusal");
    assert_eq!(wanted.services()[0].spec, kept);
    let none = desired(&[Change::AddService(said)], &Model::default()).expect("no refusal");
    assert_eq!(none.services()[0].spec.mss, None);
}

#[test]
fn what_defaults_say_of_segments_is_for_tcp_and_may_be_taken_back() {
    let services = "[[service]]\ntcp = \"192.0.2.10:80\"\n[[service]]\nudp = \"192.0.2.10:80\"\n\
                    [[service]]\ntcp = \"192.0.2.10:81\"\nmss = false\n";
    let model = read(&format!("[defaults]\nmss = \"auto\"\n{services}")).model;
    let said: Vec<_> = model.services().iter().map(|service| service.spec.mss).collect();
    assert_eq!(said, [Some(Mss::Auto), None, None]);
}

#[test]
fn an_empty_file_is_a_director_without_services() {
    assert_eq!(read("# nothing yet\n"), Config::default());
}

#[test]
fn what_is_not_there_any_more_is_not_looked_after() {
    let mut config = read(
        "[[service]]\ntcp = \"192.0.2.10:80\"\ncheck = \"tcp\"\nservers = [\"10.0.0.11\", \"10.0.0.12\"]\n\n\
         [[service]]\ntcp = \"192.0.2.10:81\"\ncheck = \"tcp\"\nservers = [\"10.0.0.11\"]\n",
    );
    let [first, second] = config.model.services().to_vec().try_into().expect("two services");
    let gone =
        [Change::DeleteService(second.spec.key), Change::DeleteServer(first.spec.key, first.servers[0].key)];
    gone.iter().for_each(|change| config.model.apply(change).expect("it is there"));
    let pruned = config.pruned();
    assert_eq!(pruned.pools.len(), 1);
    let left: Vec<_> = pruned.pools[&first.spec.key].servers.keys().copied().collect();
    assert_eq!(left, [first.servers[1].key]);
}

/// Goes the way from one model to another, as the daemon does.
fn become_this(now: &Model, wanted: &Model, in_order: bool) -> Model {
    let wanted =
        if in_order { wanted.clone() } else { in_place(wanted, now).expect("it was a model before") };
    let mut model = now.clone();
    for change in diff(now, &wanted) {
        model.apply(&change).expect("a plan can be gone");
    }
    model
}

/// A model without the order of its services' servers.
fn unordered(model: &Model) -> Model {
    let mut sorted = Model::default();
    for service in model.services() {
        sorted.apply(&Change::AddService(service.spec.clone())).expect("it was in a model before");
        let mut servers = service.servers.clone();
        servers.sort_by_key(|server| server.key);
        let key: ServiceKey = service.spec.key;
        servers.iter().for_each(|s| sorted.apply(&Change::AddServer(key, *s)).expect("likewise"));
    }
    become_this(&sorted, model, false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_written_file_reads_back_equal(config in any_config()) {
        let text = config.to_toml();
        let back = Config::read(&text).map_err(|m| TestCaseError::fail(m.in_file(&text)))?;
        prop_assert_eq!(&back, &config, "{}", text);
        prop_assert_eq!(back.to_toml(), text);
    }

    #[test]
    fn what_was_before_leaves_no_trace(a in any_config(), b in any_config()) {
        let (a, b) = (a.model, b.model);
        let nothing = Model::default();
        let by_a = become_this(&become_this(&nothing, &a, false), &b, false);
        prop_assert_eq!(unordered(&by_a), unordered(&become_this(&nothing, &b, false)));
        let in_order = become_this(&become_this(&nothing, &a, true), &b, true);
        prop_assert_eq!(&in_order, &b);
    }

    #[test]
    fn nothing_is_planned_after_it_was_done(a in any_config(), b in any_config()) {
        let done = become_this(&a.model, &b.model, false);
        prop_assert!(diff(&done, &in_place(&b.model, &done).expect("a model")).is_empty());
    }

    #[test]
    fn a_rollback_restores(a in any_config(), b in any_config()) {
        let saved = a.to_toml();
        let back = Config::read(&saved).expect("it was written").model;
        prop_assert_eq!(become_this(&become_this(&a.model, &b.model, true), &back, true), a.model);
    }

    #[test]
    fn garbage_is_refused_and_never_breaks_the_reader(text in "[a-z0-9=\\[\\]{}\",.:\n ]{0,200}") {
        if let Err(mistakes) = Config::read(&text) {
            prop_assert!(mistakes.iter().count() > 0);
        }
    }
}
