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
        let path = std::env::temp_dir().join(format!("xlvs-cli-{}-{name}.json", std::process::id()));
        std::fs::write(&path, content.to_string()).expect("a file for the test");
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
        assert!(page.contains(&format!("xlvs\\-{command}(8)")), "{command} is not on the page");
        if command != "ipvsadm" {
            let own = succeeds(&["man", command]);
            assert!(
                own.contains(&format!(".TH xlvs-{command} 8"))
                    || own.contains(&format!(".TH xlvs\\-{command} 8")),
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
    for words in [&["status"][..], &["save"], &["explain", "--from", "10.0.0.1:40000"], &["check"]] {
        let output = xlvs(&[words, &["--run-dir", "/nonexistent"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            text(&output.stderr).contains("is `xlvs run` running?"),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }
}
