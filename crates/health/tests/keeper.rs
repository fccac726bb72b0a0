//! A keeper with a model, and a clock that only the test moves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xlvs_health::keeper::{News, Pools, Settlement, Task};
use xlvs_health::{AgentWord, Health, Keeper, Memory, Moment, OperatorWord, Outcome, Place, Reason};
use xlvs_model::{Change, Config, Model, ServerKey, ServerSpec, ServiceKey};

/// A director: what is in force, and who looks after it.
struct Site {
    keeper: Keeper,
    in_force: Model,
    pools: Pools,
    now: Instant,
    began: Instant,
    /// Servers whose probes fail.
    broken: BTreeSet<ServerKey>,
    /// The server whose probes warn, and of what.
    warning: Option<(ServerKey, String)>,
    told: Settlement,
}

impl Site {
    fn new(file: &str) -> Self {
        let config = read(file);
        let now = Instant::now();
        let mut keeper = Keeper::new(7);
        keeper.reconfigure(&config.pools, &Model::default(), now);
        let in_force = keeper.project(&config.model, None);
        Self {
            keeper,
            in_force,
            pools: config.pools,
            now,
            began: now,
            broken: BTreeSet::new(),
            warning: None,
            told: Settlement::default(),
        }
    }

    fn service(&self) -> ServiceKey {
        self.in_force.services()[0].spec.key
    }

    /// Host and weight of the servers in force.
    fn serving(&self) -> Vec<(u8, u32)> {
        let servers = &self.in_force.services()[0].servers;
        let mut serving: Vec<_> = servers.iter().map(|spec| (host(&spec.key), spec.weight)).collect();
        serving.sort_unstable();
        serving
    }

    fn breaks(&mut self, host: u8) {
        self.broken.insert(server(host));
    }

    fn mends(&mut self, host: u8) {
        self.broken.remove(&server(host));
    }

    /// Lets time pass, and every probe end at once.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.keeper.wakes_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            for task in self.keeper.tick(self.now) {
                let Task::Probe { check, number, target, .. } = task else {
                    panic!("nothing takes long: {task:?}")
                };
                let asked = ServerKey { addr: target.ip(), port: target.port() };
                let is_broken = self.broken.contains(&asked);
                let warning = self.warning.clone().filter(|(server, _)| *server == asked);
                let fine = warning.map_or(Outcome::Success, |(_, of)| Outcome::Warning(of));
                let refused = || Outcome::Failure("connection refused".to_owned());
                let outcome = if is_broken { refused() } else { fine };
                self.keeper.ended(check, number, outcome, self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        let settlement = self.keeper.settle(&self.in_force, self.now);
        for change in &settlement.changes {
            self.in_force.apply(change).unwrap_or_else(|why| panic!("{change:?}: {why}"));
        }
        self.keeper.carried_out(&self.in_force);
        self.told.changes.extend(settlement.changes);
        self.told.notices.extend(settlement.notices);
        self.told.news.extend(settlement.news);
        self.told.resets.extend(settlement.resets);
    }

    /// A command of ipvsadm's that the director accepts.
    fn command(&mut self, change: Change) {
        self.in_force.apply(&change).expect("it is accepted");
        self.keeper.heard(&[change]);
        self.settle();
    }

    fn operator(&mut self, host: u8, word: OperatorWord) {
        self.keeper.operator_said((self.service(), server(host)), word);
        self.settle();
    }

    /// The stated servers, in their order.
    fn stated(&self) -> Vec<ServerSpec> {
        self.keeper.stated(&self.in_force).services()[0].servers.clone()
    }

    /// A daemon is killed when it has written down what it was about to do, and another goes on.
    fn crash(&mut self) {
        self.keeper.settle(&self.in_force, self.now);
        self.restart();
    }

    /// A daemon ends, and another goes on.
    fn restart(&mut self) {
        self.restart_after(Duration::ZERO);
    }

    /// The same, and for a while nobody looks after anything.
    fn restart_after(&mut self, time: Duration) {
        let memory = serde_json::to_string(&self.keeper.memory(self.moment())).expect("to JSON");
        let memory: Memory = serde_json::from_str(&memory).expect("from JSON");
        self.now += time;
        self.keeper = Keeper::remembering(8, memory, &self.pools, self.moment());
        self.settle();
    }

    /// Now; an hour after the machine was booted all began.
    fn moment(&self) -> Moment {
        Moment { now: self.now, since_boot: Duration::from_secs(3600) + (self.now - self.began) }
    }

    fn notices(&self) -> Vec<&str> {
        self.told.notices.iter().filter_map(|notice| Some(notice.command.last()?.as_str())).collect()
    }
}

fn read(file: &str) -> Config {
    Config::read(file).unwrap_or_else(|mistakes| panic!("{}", mistakes.in_file("xlvs.toml")))
}

fn server(host: u8) -> ServerKey {
    ServerKey { addr: [10, 0, 0, host].into(), port: 80 }
}

fn host(key: &ServerKey) -> u8 {
    match key.addr {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Three servers, checked every second.
fn three(more: &str) -> String {
    format!(
        "[[service]]\ntcp = \"192.0.2.1:80\"\nmethod = \"nat\"\nservers = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"]\n\
         check = {{ type = \"tcp\", interval = 1, timeout = \"500ms\", rise = 2, fall = 3 }}\n{more}"
    )
}

#[test]
fn a_server_that_breaks_is_out_within_its_time_and_comes_back() {
    let mut site = Site::new(&three("notify_down = \"down\"\nnotify_up = \"up\"\n"));
    site.pass(seconds(10));
    assert_eq!(site.serving(), [(1, 1), (2, 1), (3, 1)]);
    assert!(site.told.notices.is_empty() && site.told.changes.is_empty(), "{:?}", site.told);
    site.breaks(2);
    site.pass(Duration::from_millis(1800));
    assert_eq!(site.serving().len(), 3, "two failures are not enough");
    site.pass(Duration::from_millis(1300));
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
    site.mends(2);
    site.pass(seconds(3));
    assert_eq!(site.serving(), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(site.notices(), ["down", "up"]);
    let [News::Server { effective, detail, .. }, _] = &site.told.news[..] else {
        panic!("{:?}", site.told.news)
    };
    assert_eq!((effective.place, effective.reason), (Place::Out, Reason::CheckFailed));
    assert_eq!(detail.as_deref(), Some("connection refused"));
}

#[test]
fn with_inhibit_a_broken_server_keeps_its_place_at_weight_0() {
    let mut site = Site::new(&three("inhibit_on_failure = true\n"));
    site.breaks(2);
    site.pass(seconds(5));
    assert_eq!(site.serving(), [(1, 1), (2, 0), (3, 1)]);
}

#[test]
fn connections_of_a_broken_server_end_where_that_is_wanted_and_of_no_other() {
    let mut site = Site::new(&three("on_failure = \"reset\"\n"));
    site.pass(seconds(2));
    site.breaks(2);
    site.pass(seconds(10));
    let broken = [(site.service(), server(2))];
    assert_eq!(site.told.resets, broken, "once");
    site.operator(1, OperatorWord::Disabled);
    site.mends(2);
    site.pass(seconds(5));
    assert_eq!(site.told.resets, broken, "an operator ends none, and one that is back has none");
    site.breaks(2);
    site.pass(seconds(5));
    assert_eq!(site.told.resets, [broken[0], broken[0]]);

    let mut keeping = Site::new(&three("on_failure = \"keep\"\n"));
    keeping.breaks(2);
    keeping.pass(seconds(5));
    assert_eq!(keeping.told.resets, []);
}

/// Breaks a server for as long as it takes to be noticed, and mends it.
fn flap(site: &mut Site, host: u8) {
    site.breaks(host);
    site.pass(seconds(4));
    site.mends(host);
    site.pass(seconds(4));
}

#[test]
fn a_server_that_flaps_is_held_out_and_let_go() {
    let mut site = Site::new(&three("damping = \"1m\"\nnotify_up = \"up\"\n"));
    site.pass(seconds(2));
    for _ in 0..2 {
        flap(&mut site, 2);
        assert_eq!(site.serving().len(), 3, "it is back at once");
    }
    flap(&mut site, 2);
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
    assert_eq!(site.notices(), ["up", "up"], "not the third time");
    let shown = site.keeper.standings(&site.in_force, site.now);
    let held = &shown[1];
    assert_eq!((held.effective.reason, held.health), (Reason::Flapping, Health::Up));
    let left = held.detail.as_deref().and_then(|detail| detail.strip_prefix("for ")?.strip_suffix(" s more"));
    let left: u64 = left.and_then(|left| left.parse().ok()).unwrap_or_else(|| panic!("{held:?}"));
    site.pass(seconds(left - 2));
    assert_eq!(site.serving().len(), 2, "{left} s are not over");
    site.pass(seconds(3));
    assert_eq!(site.serving().len(), 3);
    assert_eq!(site.notices(), ["up", "up", "up"]);
    assert_eq!(site.keeper.wakes_at().map(|at| at <= site.now + seconds(2)), Some(true), "checks go on");
}

#[test]
fn who_is_held_out_stays_so_when_the_daemon_changes_and_goes_when_an_operator_says_so() {
    let mut site = Site::new(&three("damping = \"1m\"\n"));
    site.pass(seconds(2));
    (0..3).for_each(|_| flap(&mut site, 2));
    site.restart();
    site.pass(seconds(30));
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
    site.operator(2, OperatorWord::Enabled);
    assert_eq!(site.serving().len(), 3);
    flap(&mut site, 2);
    assert_eq!(site.serving().len(), 3, "what was is forgotten");
}

#[test]
fn the_time_of_who_is_held_out_goes_on_while_the_daemon_changes() {
    let let_go_after = |restarts: &[u64]| {
        let mut site = Site::new(&three("damping = \"1m\"\n"));
        site.pass(seconds(2));
        (0..3).for_each(|_| flap(&mut site, 2));
        let held = site.now;
        for gap in restarts {
            site.pass(seconds(10));
            site.restart_after(seconds(*gap));
            assert_eq!(site.serving().len(), 2, "after {:?}", site.now - held);
        }
        while site.serving().len() < 3 {
            site.pass(seconds(1));
        }
        (site.now - held).as_secs()
    };
    let without = let_go_after(&[]);
    let with = let_go_after(&[0, 5, 20]);
    assert!(with.abs_diff(without) <= 1, "{with} s with another daemon, {without} s with one");
}

#[test]
fn a_server_that_breaks_again_while_it_is_held_out_is_held_for_longer() {
    let held_for = |flaps: usize| {
        let mut site = Site::new(&three("damping = \"1m\"\n"));
        site.pass(seconds(2));
        (0..flaps).for_each(|_| flap(&mut site, 2));
        let mut waited = 0;
        while site.serving().len() < 3 {
            site.pass(seconds(1));
            waited += 1;
        }
        waited
    };
    let (three, five) = (held_for(3), held_for(5));
    assert!((60..120).contains(&three) && five > three + 15 && five <= 240, "{three} s, {five} s");
}

#[test]
fn what_a_check_warns_of_is_told_when_it_begins_and_when_it_ends_and_changes_nothing() {
    let mut site = Site::new(&three(""));
    site.pass(seconds(2));
    for of in [Some("late"), Some("later"), None] {
        site.warning = of.map(|of| (server(2), of.to_owned()));
        site.pass(seconds(5));
        let shown = site.keeper.standings(&site.in_force, site.now);
        let shown: Vec<_> = shown.iter().map(|standing| standing.warning.as_deref()).collect();
        assert_eq!(shown, [None, of, None]);
    }
    let of =
        |of: Option<&str>| News::Warning { server: (site.service(), server(2)), of: of.map(str::to_owned) };
    assert_eq!(site.told.news, [of(Some("late")), of(Some("later")), of(None)]);
    assert!(site.told.changes.is_empty() && site.told.notices.is_empty(), "{:?}", site.told);
}

#[test]
fn with_alpha_a_server_serves_only_after_its_first_check() {
    let mut site = Site::new(&three("alpha = true\n"));
    assert!(site.serving().is_empty());
    site.breaks(3);
    site.pass(seconds(2));
    assert_eq!(site.serving(), [(1, 1), (2, 1)]);
}

#[test]
fn the_sorry_server_comes_when_all_are_down_and_goes_when_one_is_back() {
    let mut site =
        Site::new(&three("sorry = \"10.0.0.99\"\nquorum_down = \"lost\"\nquorum_up = \"gained\"\n"));
    site.pass(seconds(2));
    (1..=3).for_each(|host| site.breaks(host));
    site.pass(seconds(5));
    assert_eq!(site.serving(), [(99, 1)]);
    assert_eq!(site.stated().len(), 3, "nobody stated the sorry server");
    site.restart();
    assert_eq!(site.serving(), [(99, 1)]);
    site.mends(1);
    site.pass(seconds(5));
    assert_eq!(site.serving(), [(1, 1)]);
    assert_eq!(site.notices(), ["lost", "gained"]);
}

#[test]
fn the_operators_word_wins_until_it_is_taken_back() {
    let mut site = Site::new(&three(""));
    site.pass(seconds(2));
    site.operator(1, OperatorWord::Drained);
    site.operator(2, OperatorWord::Disabled);
    assert_eq!(site.serving(), [(1, 0), (3, 1)]);
    site.pass(seconds(5));
    site.restart();
    assert_eq!(site.serving(), [(1, 0), (3, 1)]);
    let standing =
        site.keeper.standings(&site.in_force, site.now).into_iter().find(|s| s.stated.key == server(2));
    let standing = standing.expect("it is looked after");
    assert_eq!((standing.operator, standing.health), (OperatorWord::Disabled, Health::Up));
    assert_eq!(standing.effective.reason, Reason::Disabled);
    site.operator(1, OperatorWord::Enabled);
    site.operator(2, OperatorWord::Enabled);
    assert_eq!(site.serving(), [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn an_agents_share_goes_by_the_stated_weight() {
    let mut site = Site::new(&three("agent = 9999\nweight = 10\n"));
    site.pass(seconds(2));
    let says = |site: &mut Site, percent| {
        let word = AgentWord { percent, ..AgentWord::default() };
        site.keeper.agent_said((site.service(), server(1)), word);
        site.settle();
    };
    says(&mut site, 50);
    assert_eq!(site.serving(), [(1, 5), (2, 10), (3, 10)]);
    let key = site.service();
    let heavier = ServerSpec { weight: 20, ..site.stated()[0] };
    site.command(Change::EditServer(key, heavier));
    assert_eq!(site.serving(), [(1, 10), (2, 10), (3, 10)]);
    site.restart();
    says(&mut site, 100);
    assert_eq!(site.serving(), [(1, 20), (2, 10), (3, 10)]);
}

#[test]
fn a_daemon_that_goes_on_disturbs_nothing() {
    let mut site = Site::new(&three("alpha = true\n"));
    site.breaks(2);
    site.pass(seconds(5));
    let (before, told) = (site.serving(), site.told.changes.len());
    site.restart();
    // A failure now is one of three, not the first word about an unknown server.
    site.breaks(1);
    site.pass(seconds(1));
    site.mends(1);
    site.pass(seconds(5));
    assert_eq!((site.serving(), site.told.changes.len()), (before, told));
}

#[test]
fn a_check_that_stays_goes_on_when_others_change() {
    let mut site = Site::new(&three(""));
    site.breaks(2);
    site.pass(seconds(5));
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
    let config = read(
        &(three("") + "\n[[service]]\ntcp = \"192.0.2.2:80\"\ncheck = \"tcp\"\nservers = [\"10.0.0.7\"]\n"),
    );
    site.keeper.reconfigure(&config.pools, &site.in_force, site.now);
    site.in_force = site.keeper.project(&config.model, Some(&site.in_force));
    assert_eq!(site.serving(), [(1, 1), (3, 1)], "what was known is known");
    // Also of a check that is made otherwise from now on.
    let other = read(&three("").replace("fall = 3", "fall = 1"));
    site.keeper.reconfigure(&other.pools, &site.in_force, site.now);
    site.in_force = site.keeper.project(&other.model, Some(&site.in_force));
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
}

#[test]
fn a_server_that_serves_already_is_not_taken_out_for_its_first_check() {
    let unchecked = three("").replace("check = ", "# check = ");
    let mut site = Site::new(&unchecked);
    let config = read(&three("alpha = true\n"));
    site.keeper.reconfigure(&config.pools, &site.in_force, site.now);
    site.in_force = site.keeper.project(&config.model, Some(&site.in_force));
    assert_eq!(site.serving().len(), 3);
    site.breaks(2);
    site.pass(seconds(1));
    assert_eq!(site.serving().len(), 3, "one failure is not enough");
    site.pass(seconds(4));
    assert_eq!(site.serving(), [(1, 1), (3, 1)]);
}

#[test]
fn what_the_director_refuses_is_not_taken_for_done() {
    let mut site = Site::new(&three(""));
    site.breaks(2);
    site.pass(seconds(5));
    site.mends(2);
    let key = site.service();
    site.keeper.operator_said((key, server(1)), OperatorWord::Disabled);
    let settlement = site.keeper.settle(&site.in_force, site.now);
    assert!(!settlement.is_empty());
    site.keeper.refused(settlement);
    assert_eq!(site.stated().len(), 3);
    site.pass(seconds(5));
    assert_eq!(site.serving(), [(2, 1), (3, 1)]);
    assert_eq!(site.stated().len(), 3);
}

#[test]
fn five_thousand_checks_are_spread_over_their_interval() {
    let mut text = "[defaults]\nmethod = \"nat\"\ncheck = \"tcp\"\n".to_owned();
    for n in 0..500 {
        let servers: Vec<String> = (1..=10).map(|host| format!("\"10.0.0.{host}\"")).collect();
        text +=
            &format!("[[service]]\ntcp = \"192.0.2.1:{}\"\nservers = [{}]\n", 1000 + n, servers.join(", "));
    }
    let config = read(&text);
    let mut keeper = Keeper::new(1);
    let began = Instant::now();
    keeper.reconfigure(&config.pools, &Model::default(), began);
    let mut most = 0;
    for tenth in 1..=20 {
        most = most.max(keeper.tick(began + Duration::from_millis(tenth * 100)).len());
    }
    assert!((150..400).contains(&most), "{most} of 5000 checks begin within a tenth of a second");
}

#[derive(Clone, Debug)]
enum Step {
    Break(u8),
    Mend(u8),
    Pass(u64),
    Operator(u8, OperatorWord),
    Agent(u8, AgentWord),
    Weigh(u8, u32),
    Delete(u8),
    Add(u8, u32),
    Restart,
    CrashAfter(u8, OperatorWord),
}

fn any_step() -> impl Strategy<Value = Step> {
    let host = 1..5_u8;
    let word =
        prop_oneof![Just(OperatorWord::Enabled), Just(OperatorWord::Drained), Just(OperatorWord::Disabled)];
    let agent = (0..150_u16, any::<bool>()).prop_map(|(percent, is_down)| AgentWord {
        percent,
        is_down,
        ..AgentWord::default()
    });
    prop_oneof![
        host.clone().prop_map(Step::Break),
        host.clone().prop_map(Step::Mend),
        (0..5000_u64).prop_map(Step::Pass),
        (host.clone(), word.clone()).prop_map(|(host, word)| Step::Operator(host, word)),
        (host.clone(), word).prop_map(|(host, word)| Step::CrashAfter(host, word)),
        (host.clone(), agent).prop_map(|(host, word)| Step::Agent(host, word)),
        (host.clone(), 0..20_u32).prop_map(|(host, weight)| Step::Weigh(host, weight)),
        host.clone().prop_map(Step::Delete),
        (host, 1..20_u32).prop_map(|(host, weight)| Step::Add(host, weight)),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens, what was stated is not forgotten, and what is in force follows from it.
    #[test]
    fn nothing_that_was_stated_is_ever_lost(
        steps in proptest::collection::vec(any_step(), 0..40),
        sorry: bool,
        inhibit: bool,
    ) {
        let mut more = "agent = 9999\nweight = 10\n".to_owned();
        if sorry { more += "sorry = \"10.0.0.99\"\n" }
        if inhibit { more += "inhibit_on_failure = true\n" }
        let mut site = Site::new(&three(&more));
        let mut stated = site.stated();
        let key = site.service();
        for step in steps {
            match step {
                Step::Break(host) => site.breaks(host),
                Step::Mend(host) => site.mends(host),
                Step::Pass(ms) => site.pass(Duration::from_millis(ms)),
                Step::Operator(host, word) => site.operator(host, word),
                Step::Agent(host, word) => {
                    site.keeper.agent_said((key, server(host)), word);
                    site.settle();
                }
                Step::Weigh(host, weight) => {
                    let there = site.in_force.services()[0].server(&server(host)).copied();
                    if let Some(there) = there {
                        site.command(Change::EditServer(key, ServerSpec { weight, ..there }));
                        let known = stated.iter_mut().find(|spec| spec.key == there.key);
                        known.expect("it is stated").weight = weight;
                    }
                }
                Step::Delete(host) => {
                    if site.in_force.services()[0].server(&server(host)).is_some() {
                        site.command(Change::DeleteServer(key, server(host)));
                        stated.retain(|spec| spec.key != server(host));
                    }
                }
                Step::Add(host, weight) => {
                    let spec = ServerSpec { weight, ..ServerSpec::new(server(host), xlvs_model::spec::Method::Masquerade) };
                    if site.in_force.services()[0].server(&server(host)).is_none() {
                        site.command(Change::AddServer(key, spec));
                        match stated.iter_mut().find(|known| known.key == spec.key) {
                            Some(known) => *known = spec,
                            None => stated.push(spec),
                        }
                    }
                }
                Step::Restart => site.restart(),
                Step::CrashAfter(host, word) => {
                    site.keeper.operator_said((key, server(host)), word);
                    site.crash();
                }
            }
            prop_assert_eq!(site.stated(), stated.clone());
            prop_assert!(site.keeper.settle(&site.in_force, site.now).is_empty());
            for standing in site.keeper.standings(&site.in_force, site.now) {
                let now = site.in_force.services()[0].server(&standing.stated.key).map(|spec| spec.weight);
                let place = standing.effective.place;
                prop_assert_eq!(now, if place == Place::Out { None } else { Some(place.weight()) });
            }
        }
        // A file that says the same again makes the same of it.
        let again = site.keeper.stated(&site.in_force);
        prop_assert_eq!(&site.keeper.project(&again, Some(&site.in_force)), &site.in_force);
        let order: Vec<ServerKey> = again.services()[0].servers.iter().map(|spec| spec.key).collect();
        prop_assert_eq!(order, stated.iter().map(|spec| spec.key).collect::<Vec<_>>());
    }
}
