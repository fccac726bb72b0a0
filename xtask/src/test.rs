//! Every test there is, in one go, and their count as the last line.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::ebpf::Objects;
use crate::process::{host_cargo, run, succeeds};
use crate::tally::Tally;
use crate::{apt, bench, build, package, place};

/// What the tests with real traffic run.
const PROGRAMS: [&str; 17] = [
    "iproute2",
    "ethtool",
    "curl",
    "nginx-light",
    "iperf3",
    "tcpdump",
    "iputils-ping",
    "procps",
    "haproxy",
    // Servers that checks are tried on, besides nginx.
    "dnsmasq-base",
    "exim4-daemon-light",
    "python3-grpcio",
    "systemd",
    "util-linux",
    // What the daemon's page is looked at with, and letters for it.
    "chromium",
    "chromium-driver",
    "fonts-dejavu-core",
];

/// Packages whose tests make network namespaces or load programs: as root, few at a time.
const ROOT_PACKAGES: [&str; 3] = ["xlvs-lab", "xlvs-datapath", "xlvs-realserver"];

/// Installs what is missing, checks, builds, tests and counts.
pub fn test() -> Result<ExitCode> {
    apt::ensure_installed(&PROGRAMS, "testing with real traffic")?;
    install_checkers()?;
    let mut tally = Tally::default();
    check(&mut tally)?;
    tally.tests("tests without privileges", &mut host_tests())?;
    if place::root().join("crates/core/tests/loom.rs").exists() {
        tally.tests("every interleaving of the connection table (loom)", &mut loom_tests())?;
    }
    match build::build() {
        Ok((binary, objects)) => {
            tally.step("build", Ok(()));
            tally.tests(
                "tests in network namespaces",
                root_tests(&mut host_cargo(), &objects).env("XLVS_BIN", &binary),
            )?;
            tally.step("package", package::pack(&binary).and_then(|package| package::try_out(&package)));
        }
        Err(error) => tally.step("build", Err(error)),
    }
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes `ebpf/budget.txt` and `ebpf/budget-paths.txt` anew.
pub fn budget() -> Result<()> {
    let rows = ["--parts", "rows", "--only", "one flow", "--paths", "ebpf/budget-paths.txt"];
    let objects = bench::bench(&rows.map(str::to_owned))?;
    let mut cargo = host_cargo();
    let cargo = build::with_objects(&mut cargo, &objects).env("XLVS_WRITE_BUDGET", "1");
    run(cargo.args([
        "test",
        "--release",
        "--package",
        "xlvs-datapath",
        "--test",
        "budget",
        "--",
        "--nocapture",
    ]))
}

fn check(tally: &mut Tally) -> Result<()> {
    println!("==> format and lints");
    let cargo = || -> Command { in_root(host_cargo()) };
    tally.step("cargo fmt", run(cargo().args(["fmt", "--all", "--check"])));
    // A workspace of its own, for another target.
    let ebpf = place::root().join("ebpf");
    tally.step("cargo fmt in ebpf", run(cargo().current_dir(ebpf).args(["fmt", "--all", "--check"])));
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.step("cargo clippy", run(cargo().args(clippy)));
    Ok(())
}

fn host_tests() -> Command {
    let mut cargo = in_root(host_cargo());
    cargo.args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
    for package in ROOT_PACKAGES {
        cargo.args(["--exclude", package]);
    }
    cargo
}

fn loom_tests() -> Command {
    let mut cargo = in_root(host_cargo());
    cargo.args(["test", "--quiet", "--package", "xlvs-core", "--release", "--test", "loom"]);
    // Its own target directory: the flag would otherwise have everything built anew each time.
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", place::target().join("loom"));
    cargo
}

// In release mode: the binary has just built the same crates so.
fn root_tests<'a>(cargo: &'a mut Command, objects: &Objects) -> &'a mut Command {
    build::with_objects(cargo, objects).args(["test", "--release", "--no-fail-fast"]);
    for package in ROOT_PACKAGES {
        cargo.args(["--package", package]);
    }
    cargo.args(["--", "--test-threads=2"])
}

fn in_root(mut cargo: Command) -> Command {
    cargo.current_dir(place::root());
    cargo
}

fn install_checkers() -> Result<()> {
    for (component, package) in [("fmt", "rustfmt-web"), ("clippy", "rust-web-clippy")] {
        if succeeds(in_root(host_cargo()).args([component, "--version"])) {
            continue;
        }
        let name = if component == "fmt" { "rustfmt" } else { component };
        if succeeds(Command::new("rustup").arg("--version")) {
            println!("==> installing rustup's {name}");
            run(Command::new("rustup").args(["component", "add", name]))?;
        } else {
            apt::ensure_installed(&[package], "checking the code")?;
        }
    }
    Ok(())
}
