//! The commands that need no daemon, from outside: players, completions, manual pages.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn xlvs(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xlvs")).args(words).output().expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(words: &[&str]) -> String {
    let output = xlvs(words);
    assert!(output.status.success(), "xlvs {words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A file of its own in the directory for temporary ones, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn holding(name: &str, content: &Value) -> Self {
        Self::with_text(name, &content.to_string())
    }

    fn with_text(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xlvs-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a file for the test");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a name in UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn recorded(file: &str) -> String {
    format!("{}/../tests/oracle/sched/{file}.json", env!("CARGO_MANIFEST_DIR"))
}

fn case(name: &str) -> Value {
    let scheduler = name.split('-').next().expect("a scheduler");
    let file = std::fs::read_to_string(recorded(scheduler)).expect("the recording");
    let file: Value = serde_json::from_str(&file).expect("JSON");
    let cases = file["cases"].as_array().expect("cases");
    cases.iter().find(|case| case["name"] == name).expect("the case is recorded").clone()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["name"].as_str().unwrap_or_default()).collect()
}

// ------------------------------------------------------------------------------------------------------------ players

#[test]
fn only_is_a_regular_expression() {
    let output = xlvs(&["simulate", &recorded("wrr"), "--only", "^wrr-(123|511)-held-1client$"]);
    assert!(output.status.success());
    assert_eq!(names(&lines(&output)), ["wrr-123-held-1client", "wrr-511-held-1client"]);
    for command in [&["simulate"][..], &["lab", "play"]] {
        let output = xlvs(&[command, &["nothing.json", "--only", "("]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_file_may_hold_one_case() {
    let case = case("wlc-123-held-1client");
    let file = Temporary::holding("one", &case);
    let output = xlvs(&["simulate", file.path()]);
    let lines = lines(&output);
    assert!(output.status.success() && lines.len() == 1);
    assert_eq!(lines[0]["sequence"], case["sequence"]);
    assert_eq!(lines[0]["after"]["Ln"], case["after"]["Ln"]);
}

/// What one asks a kernel may be asked here: `ops` in place of `steps`.
#[test]
fn a_question_is_answered_as_it_was_recorded() {
    let case = case("wrr-123-reweight");
    let op = |step: &Value| {
        let client = step["client"].as_str().and_then(|addr| addr.rsplit('.').next()?.parse::<u64>().ok());
        match step["op"].as_str() {
            Some("open") => json!(["open", client]),
            Some("adm") => json!(["adm", "-e {svc} -r {r1} -m -w 4"]),
            _ => json!(["snap", "Ln"]),
        }
    };
    let ops: Vec<Value> = case["steps"].as_array().expect("steps").iter().map(op).collect();
    let asked = json!([{
        "name": "asked", "scheduler": "wrr", "weights": [1, 2, 3], "vport": case["vport"], "listings": ["Ln", "save"],
        "ops": ops,
    }]);
    let output = xlvs(&["simulate", Temporary::holding("asked", &asked).path()]);
    let line = &lines(&output)[0];
    assert_eq!(line["sequence"], case["sequence"], "{line}");
    assert_eq!(line["after"]["Ln"], case["after"]["Ln"]);
    assert_eq!(line["snaps"].as_array().map(Vec::len), Some(1));
}

#[test]
fn of_a_shell_only_the_directors_commands_are_simulated() {
    let mut case = case("rr-none");
    case["steps"] = json!([{ "op": "sh", "cmd": "sysctl -w net.ipv4.vs.sloppy_tcp=1" }, { "op": "sh", "cmd": "ipvsadm -C" }]);
    let output = xlvs(&["simulate", Temporary::holding("shell", &case).path()]);
    assert_eq!(lines(&output)[0]["after"]["save"], "", "{}", text(&output.stdout));
    case["steps"] = json!([{ "op": "sh", "cmd": "ip link" }]);
    let output = xlvs(&["simulate", Temporary::holding("shell", &case).path()]);
    assert!(text(&output.stdout).contains("cannot be simulated"), "{}", text(&output.stdout));
}

#[test]
fn a_case_that_cannot_be_played_has_its_line_and_the_others_theirs() {
    let good = case("rr-123-held-1client");
    let mut odd = good.clone();
    odd["name"] = "odd".into();
    odd["steps"] = json!([{ "op": "dance" }]);
    let file = Temporary::holding("odd", &json!({ "cases": [odd, good] }));
    let output = xlvs(&["simulate", file.path()]);
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(&lines), ["odd", "rr-123-held-1client"]);
    assert!(lines[0]["error"].as_str().is_some_and(|why| why.contains("dance")), "{}", lines[0]);
    assert_eq!(lines[1]["sequence"], good["sequence"]);
}

#[test]
fn a_command_that_went_well_for_the_kernel_must_go_well() {
    let mut refused = case("rr-123-held-1client");
    refused["setup"][0]["cmd"] = "ipvsadm -A -t 10.0.0.100:2002 -s none-such".into();
    let file = Temporary::holding("refused", &refused);
    let output = xlvs(&["simulate", file.path()]);
    let why = lines(&output)[0]["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(why.contains("none-such: Scheduler or persistence engine not found"), "{why}");
}

#[test]
fn a_person_is_shown_what_a_scheduler_does() {
    let words = "simulate --servers A=3,B=2,C=1 --scheduler wrr --connections 24".split(' ');
    let text = succeeds(&words.collect::<Vec<_>>());
    let sequence: Vec<&str> = text.lines().next().expect("the sequence").split(' ').collect();
    assert_eq!(sequence.len(), 24);
    for (server, times) in [("A", 12), ("B", 8), ("C", 4)] {
        assert_eq!(sequence.iter().filter(|who| **who == server).count(), times, "{text}");
    }
    assert!(text.ends_with("Largest deviation from the weights: 0.0 points (-)\n"), "{text}");
}

#[test]
fn a_scheduler_that_is_not_there_and_servers_that_make_no_sense_are_refused() {
    for (words, why) in [
        (&["--servers", "A", "--scheduler", "none-such"][..], "Scheduler or persistence engine not found"),
        (&["--servers", "A=-1"], "\"A=-1\" has no weight from 0 to 2147483647"),
        (&["--servers", "=1"], "a server has no name"),
        (&[], "required"),
    ] {
        let output = xlvs(&[&["simulate"], words].concat());
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}");
        assert!(text(&output.stderr).contains(why), "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn ipvsadm_is_a_word_of_ours_and_a_name_of_ours() {
    let ours = xlvs(&["ipvsadm", "--version"]);
    let link = std::env::temp_dir().join(format!("xlvs-cli-{}", std::process::id())).join("ipvsadm");
    std::fs::create_dir_all(link.parent().expect("a directory")).expect("a directory for the test");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xlvs"), &link).expect("a link");
    let linked = Command::new(&link).arg("--version").output().expect("the link leads to the binary");
    std::fs::remove_dir_all(link.parent().expect("a directory")).expect("the test's own directory");
    assert!(text(&ours.stdout).starts_with("ipvsadm v1.31"), "{}", text(&ours.stdout));
    assert_eq!((ours.status.code(), &ours.stdout), (linked.status.code(), &linked.stdout));
}

#[test]
fn a_file_that_holds_no_cases_is_refused() {
    let file = Temporary::holding("none", &json!({ "cases": 7 }));
    let output = xlvs(&["simulate", file.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("`cases` is no list"), "{}", text(&output.stderr));
}

// -------------------------------------------------------------------------------------------- completions and pages

/// The commands that `xlvs --help` lists.
fn commands() -> Vec<String> {
    let help = succeeds(&["--help"]);
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_and_completions() {
    let commands = commands();
    assert!(commands.len() >= 14, "{commands:?}");
    let page = succeeds(&["man"]);
    for command in &commands {
        let escaped = command.replace('-', "\\-");
        assert!(page.contains(&format!("xlvs\\-{escaped}(8)")), "{command} is not on the page");
        if command != "ipvsadm" {
            let own = succeeds(&["man", command]);
            assert!(
                own.contains(&format!(".TH xlvs-{command} 8"))
                    || own.contains(&format!(".TH xlvs\\-{escaped} 8")),
                "{own}"
            );
        }
        for shell in ["bash", "zsh", "fish"] {
            let text = succeeds(&["completions", shell]);
            assert!(text.contains(command.as_str()), "{shell} does not know {command}");
        }
    }
    assert_eq!(xlvs(&["man", "nonsense"]).status.code(), Some(1));
}

#[test]
fn ipvsadm_has_a_page_and_completions_of_its_own() {
    let page = succeeds(&["man", "ipvsadm"]);
    for option in ["add\\-service", "tun\\-type", "sched\\-flags"] {
        assert!(page.contains(option), "{option} is not on the page");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = succeeds(&["completions", shell, "ipvsadm"]);
        assert!(text.contains("add-service") && text.contains("lblcr"), "{shell}: {text}");
    }
}

#[test]
fn completions_for_bash_are_bash() {
    for program in ["xlvs", "ipvsadm"] {
        let script = succeeds(&["completions", "bash", program]);
        let checked = Command::new("bash").args(["-n", "-c", &script]).output().expect("bash is there");
        assert!(checked.status.success(), "{program}: {}", text(&checked.stderr));
    }
}

#[test]
fn without_a_daemon_commands_say_what_to_do() {
    for words in [
        &["status"][..],
        &["save"],
        &["reload"],
        &["history"],
        &["rollback", "1"],
        &["explain", "--from", "10.0.0.1:40000"],
        &["check"],
    ] {
        let output = xlvs(&[words, &["--run-dir", "/nonexistent"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            text(&output.stderr).contains("is `xlvs run` running?"),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }
}

// ------------------------------------------------------------------------------------------------------- rs agent

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts an agent on the loopback; where it answers.
fn agent(words: &[&str]) -> (Running, std::net::SocketAddr) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_xlvs"))
        .args(["rs", "agent", "--listen", "127.0.0.1:0"])
        .args(words)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says where it answers");
    let at = line.strip_prefix("answering at ").and_then(|rest| rest.split(": ").next()).expect("an address");
    (Running(child), at.parse().expect("an address"))
}

fn asked(at: std::net::SocketAddr, sent: &[u8]) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    // Whoever does not want to hear all of it may hang up.
    let _sent = stream.write_all(sent);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a line and an end");
    text
}

fn percent(line: &str) -> u32 {
    line.trim_end()
        .rsplit(' ')
        .next()
        .and_then(|word| word.strip_suffix('%'))
        .expect(line)
        .parse()
        .expect(line)
}

#[test]
fn an_agent_tells_its_share_and_an_operators_words() {
    let words = std::env::temp_dir().join(format!("xlvs-cli-{}-words", std::process::id()));
    let path = words.to_str().expect("a name in UTF-8");
    let (_agent, at) = agent(&["--words", path]);
    let line = asked(at, b"");
    assert!(line.starts_with("up ready ") && (1..=100).contains(&percent(&line)), "{line}");
    std::fs::write(&words, "drain").expect("a file for the test");
    let said = asked(at, b"lb1\n");
    std::fs::remove_file(&words).expect("it is there");
    assert!(said.starts_with("up drain "), "{said}");
    // Some that hang up at once, some that say too much: others are answered all the same.
    for _ in 0..200 {
        drop(std::net::TcpStream::connect(at).expect("it listens"));
    }
    assert!(asked(at, &[b'x'; 1000]).starts_with("up ready "));
}

#[test]
fn an_agent_asks_its_application() {
    let (_agent, at) = agent(&["--words", "/nonexistent", "--command", "echo 100"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while percent(&asked(at, b"")) != 1 {
        assert!(std::time::Instant::now() < deadline, "the application's load does not count");
    }
}

#[test]
fn an_agent_that_cannot_be_says_why() {
    let (_agent, at) = agent(&[]);
    let output = xlvs(&["rs", "agent", "--listen", &at.to_string()]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("is another agent running?"), "{}", text(&output.stderr));
    for (words, why) in [
        (["--url", "https://localhost/load"], "plain HTTP"),
        (["--listen", "nowhere"], "neither a port"),
        (["--cgroup", "/nonexistent"], "/nonexistent/cpu.stat"),
    ] {
        let output = xlvs(&[&["rs", "agent"][..], &words].concat());
        assert!(!output.status.success(), "{words:?}");
        assert!(text(&output.stderr).contains(why), "{words:?}: {}", text(&output.stderr));
    }
}

// ------------------------------------------------------------------------------------------------------ configuration

fn in_docs(name: &str) -> String {
    format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_example_file_is_in_order_and_has_every_word() {
    let example = in_docs("xlvs.toml.example");
    let said = succeeds(&["check-config", &example]);
    assert!(said.ends_with("is in order: 7 services, 15 servers, 14 checks, 5 agents\n"), "{said}");
    let example = std::fs::read_to_string(example).expect("the example");
    let page = std::fs::read_to_string(in_docs("configuration.md")).expect("the page");
    // The page's tables begin with the words that they are about.
    let words = page.lines().filter_map(|line| line.strip_prefix("| `")).flat_map(|line| {
        let cell = line.split(" | ").next().unwrap_or_default();
        cell.split('`').map(str::to_owned).collect::<Vec<_>>()
    });
    let words: Vec<String> =
        words.filter(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect();
    assert!(words.len() > 50, "{words:?}");
    for word in words {
        assert!(example.contains(&format!("{word} = ")), "{word} is not in the example");
    }
}

#[test]
fn the_short_example_of_the_page_is_in_order() {
    let page = std::fs::read_to_string(in_docs("configuration.md")).expect("the page");
    let lines = page
        .lines()
        .skip_while(|line| !line.starts_with("    interfaces"))
        .take_while(|line| !line.starts_with("##"));
    let file: String = lines.map(|line| format!("{}\n", line.trim_start())).collect();
    assert!(file.trim().lines().count() < 10, "{file}");
    let file = Temporary::with_text("short", &file);
    assert!(succeeds(&["check-config", file.path()]).contains("1 service, 3 servers, 3 checks, 0 agents"));
}

#[test]
fn mistakes_of_a_file_are_all_told_and_change_nothing() {
    let text = "[[service]]\ntcp = \"192.0.2.10:80\"\nschedular = \"rr\"\nservers = [\"10.0.0.300\"]\n";
    let file = Temporary::with_text("mistakes", text);
    let output = xlvs(&["check-config", file.path()]);
    assert_eq!(output.status.code(), Some(1));
    let lines = [
        ":3:1: a service has no key `schedular`; do you mean `scheduler`?",
        ":4:12: \"10.0.0.300\" is no IPv4 address: it is four numbers from 0 to 255",
    ];
    let told: String = lines.map(|line| format!("{}{line}\n", file.path())).concat();
    assert_eq!(self::text(&output.stderr), told);
    let output = xlvs(&["apply", file.path(), "--run-dir", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        self::text(&output.stderr).contains(": nothing was changed: \n"),
        "{}",
        self::text(&output.stderr)
    );
    assert!(self::text(&output.stderr).ends_with(&told));
}

#[test]
fn rules_are_checked_too() {
    let file =
        Temporary::with_text("rules", "# rules\n-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1\n");
    assert!(succeeds(&["check-config", file.path()]).ends_with("is in order: 2 rules\n"));
    let file = Temporary::with_text("wrong-rules", "-A -t 10.0.0.1:80 -s random\n");
    let output = xlvs(&["check-config", file.path()]);
    assert!(text(&output.stderr).contains("line 1: Scheduler"), "{}", text(&output.stderr));
}

#[test]
fn a_daemon_is_not_started_with_a_wrong_file_or_without_interfaces() {
    let wrong = Temporary::with_text("wrong", "[[service]]\n");
    let output = xlvs(&["run", "--config", wrong.path(), "--run-dir", "/nonexistent"]);
    assert!(text(&output.stderr).contains(":1:1: a service says where it is"), "{}", text(&output.stderr));
    let nowhere = Temporary::with_text("nowhere", "[timeouts]\ntcp = 100\n");
    let output = xlvs(&["run", "--config", nowhere.path(), "--run-dir", "/nonexistent"]);
    assert!(text(&output.stderr).contains("no interface is named"), "{}", text(&output.stderr));
}
