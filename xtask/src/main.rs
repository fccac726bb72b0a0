//! The chores of this repository, each one word: `cargo xtask ebpf`.
//!
//! Everything here runs unattended: what is missing is named, installed once, and where that
//! is impossible the chore ends with one sentence that says what to do.

mod apt;
mod bench;
mod build;
mod demo;
mod ebpf;
mod package;
mod place;
mod process;
mod symbols;
mod tally;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
cargo xtask ebpf     build the eBPF objects (installs their toolchain when it is missing)
cargo xtask build    the above, and the release binary with the object in it
cargo xtask test     install what the tests need, run all of them, count them
cargo xtask package  build, then pack a Debian package
cargo xtask demo     build, then show NAT, DR and TUN balancing real requests (root)
cargo xtask budget   build, then write down what the programs cost of instructions and stack (root)
cargo xtask bench    build, then measure what packets cost (root); --help lists its options";

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    match run(&chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &str) -> Result<ExitCode> {
    match chore {
        "ebpf" => ebpf::build().map(|_| ExitCode::SUCCESS),
        "build" => build::build().map(|_| ExitCode::SUCCESS),
        "test" => test::test(),
        "package" => package::package().map(|_| ExitCode::SUCCESS),
        "demo" => demo::demo().map(|()| ExitCode::SUCCESS),
        "budget" => test::budget().map(|()| ExitCode::SUCCESS),
        "bench" => {
            bench::bench(&std::env::args().skip(2).collect::<Vec<_>>()).map(|_objects| ExitCode::SUCCESS)
        }
        "" | "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => anyhow::bail!("no such chore; there are:\n{USAGE}"),
    }
}
