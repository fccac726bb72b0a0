//! xlvs: one binary for the director's daemon, its commands, and the commands of LVS.

mod agent;
mod apply;
mod check;
mod client;
mod daemon;
mod difference;
mod drain;
mod event;
mod explain;
mod findings;
mod history;
mod listings;
mod mark;
mod named;
mod overview;
mod paint;
mod paths;
mod plan;
mod program;
mod protocol;
mod rs;
mod server;
mod simulate;
mod sketch;
mod top;
mod trace;
mod tune;
mod unload;
mod verify;
mod watch;
mod words;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use xlvs_ipvsadm::Applet;

/// LVS done again: kernel IPVS's semantics and ipvsadm's interface on XDP.
#[derive(Parser)]
#[command(name = "xlvs", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the director's daemon.
    Run(daemon::Options),
    /// Run an ipvsadm command, exactly as the original takes it.
    #[command(disable_help_flag = true)]
    Ipvsadm {
        /// ipvsadm's words.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Show how the director is: services, servers, connections, packets and why some were dropped.
    Status(listings::Options),
    /// Show the services and their servers.
    Services(listings::Options),
    /// Show the connections.
    Connections(listings::Options),
    /// Tell what would happen to a packet now, and why, without changing anything.
    Explain(explain::Options),
    /// Tell what is wrong with a configuration file, if anything, without a director.
    CheckConfig(apply::CheckOptions),
    /// Make the director what a file says, all or nothing.
    Apply(apply::Options),
    /// Make the director what the file says that it was started with, as SIGHUP does.
    Reload(paths::Paths),
    /// Show in what the running director differs from its file.
    Diff(apply::DiffOptions),
    /// Print the director's whole state as a file that `xlvs apply` reads.
    Save(apply::SaveOptions),
    /// Show what was applied, and when.
    History(listings::Options),
    /// Make the director what a revision was.
    Rollback(history::RollbackOptions),
    /// Show or set LVS's tunables (the kernel's net.ipv4.vs.*).
    Tune(tune::Options),
    /// Say which packets carry which mark, for services of marks (ipvsadm -f).
    Mark(mark::Options),
    /// Say what is to become of a server, whatever its checks and agent say.
    Server {
        #[command(subcommand)]
        word: server::Word,
    },
    /// Have servers' agents asked for the share of their weight that they want.
    #[command(subcommand)]
    Agent(agent::Action),
    /// Show services and servers live: rates, connections, weights, health.
    Top(top::Options),
    /// Tell what happens, a line each: servers up and down, weights, services, revisions, the table, interfaces.
    Watch(watch::Options),
    /// Tell what becomes of a client's packets, step by step, as the programs in the kernel handle them.
    Trace(trace::Options),
    /// Show how all servers fare: weight as stated and in force, health, and why.
    Servers(listings::Options),
    /// Give a server no new connections, and wait until it has none.
    Drain(drain::Options),
    /// Print completions for a shell.
    Completions(words::Completions),
    /// Print a manual page.
    Man(words::Page),
    /// Compare the connection table with the servers' counters.
    Check(paths::Paths),
    /// Take the director off its interfaces and forget all services and connections.
    Unload(paths::Paths),
    /// Say what is wrong with services and servers, a line a finding, with what to do.
    Verify(verify::Options),
    /// Set this host up as a real server, and look after it.
    Rs {
        #[command(subcommand)]
        command: rs::Command,
    },
    /// Play recorded cases, or show what a scheduler would do, without a kernel.
    Simulate(simulate::Options),
    /// Work with the network-namespace lab.
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
}

#[derive(Subcommand)]
enum LabCommand {
    /// Play recorded cases with real packets and sockets (root).
    Play {
        /// The file of cases.
        file: std::path::PathBuf,
        /// The file holds recorded frames instead.
        #[arg(long)]
        packets: bool,
        /// Only cases whose name matches this.
        #[arg(long, value_name = "REGEX")]
        only: Option<regex_lite::Regex>,
    },
}

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    if let Some(applet) = Applet::of_program(Path::new(&program)) {
        return client::ipvsadm(applet, words.collect());
    }
    if words.next().is_some_and(|word| word == "ipvsadm") {
        return client::ipvsadm(Applet::Ipvsadm, words.collect());
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xlvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(options) => daemon::run(options),
        Command::Ipvsadm { words } => Ok(client::ipvsadm(Applet::Ipvsadm, words)),
        Command::Status(options) => listings::status(&options),
        Command::Services(options) => listings::services(&options),
        Command::Connections(options) => listings::connections(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Apply(options) => apply::apply(&options),
        Command::CheckConfig(options) => apply::check(&options),
        Command::Reload(paths) => apply::reload(&paths),
        Command::Diff(options) => apply::diff(&options),
        Command::Save(options) => apply::save(&options),
        Command::History(options) => history::run(&options),
        Command::Rollback(options) => history::rollback(&options),
        Command::Tune(options) => tune::run(&options),
        Command::Mark(options) => mark::run(&options),
        Command::Server { word } => server::say(&word),
        Command::Agent(action) => agent::run(&action),
        Command::Servers(options) => server::list(&options),
        Command::Top(options) => top::run(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Trace(options) => trace::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Completions(options) => words::completions(Cli::command(), &options),
        Command::Man(page) => words::page(Cli::command(), &page),
        Command::Check(paths) => check::run(&paths),
        Command::Unload(paths) => unload::run(&paths),
        Command::Verify(options) => verify::run(&options),
        Command::Rs { command } => rs::run(&command),
        Command::Simulate(options) => simulate::run(options),
        Command::Lab { command: LabCommand::Play { file, packets, only } } => {
            let me = std::env::current_exe()?;
            let mut out = std::io::stdout().lock();
            let wanted = |name: &str| only.as_ref().is_none_or(|only| only.is_match(name));
            let failed = if packets {
                xlvs_lab::frames::live::play(&file, wanted, &me, &mut out)?
            } else {
                xlvs_lab::play::play(&file, wanted, &me, &mut out)?
            };
            Ok(simulate::exit_code(failed))
        }
    }
}
