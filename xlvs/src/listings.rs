//! `xlvs status`, `xlvs services` and `xlvs connections`: for people, or as JSON.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use xlvs_ipvsadm::Backend;
use xlvs_model::Timeouts;
use xlvs_model::spec::Protocol;
use xlvs_model::view::{ConnView, ServerView, ServiceView};

use crate::client::Client;
use crate::overview::{Fragments, Interface, InterfaceState, Overview, Reason, Room};
use crate::paint::Paint;
use crate::paths::Paths;
use crate::plan::{self, server, service};
use crate::protocol::{Answer, Request};

/// Services that the overview shows one by one, and servers that an explanation does.
pub const SHOWN: usize = 40;
/// Servers without a next hop that it shows.
const UNREACHED_SHOWN: usize = 10;
/// From this share of its slots on the table is worth a look, and from this one it hurts.
const FULL: (f64, f64) = (70.0, 85.0);

/// How to show it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// As JSON, with all numbers.
    #[arg(long)]
    pub json: bool,
    /// The director's places.
    #[command(flatten)]
    pub paths: Paths,
}

/// Everything about the director, as JSON.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    overview: Overview,
    timeouts: Timeouts,
    service_list: Vec<ServiceView>,
}

/// Prints the overview.
pub fn status(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    let overview = match client.ask(&Request::Overview)? {
        Answer::Overview(overview) => *overview,
        other => return Err(other.unexpected().into()),
    };
    let services = client.services(None)?;
    let timeouts = client.timeouts()?;
    print(|out| {
        if options.json {
            return json(out, &Status { overview, timeouts, service_list: services });
        }
        write_overview(out, &overview, &services, Paint::of_stdout())
    })
}

/// Prints the services and their servers.
pub fn services(options: &Options) -> anyhow::Result<ExitCode> {
    let services = Client::connected(&options.paths)?.services(None)?;
    let paint = Paint::of_stdout();
    print(|out| {
        if options.json {
            return json(out, &services);
        }
        for service in &services {
            writeln!(out, "{}", service_line(service, paint))?;
            service.servers.iter().try_for_each(|server| writeln!(out, "{}", server_line(server)))?;
        }
        Ok(())
    })
}

/// Prints the connections, as they come.
pub fn connections(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    print(|out| {
        if options.json {
            return connections_as_json(&mut client, out);
        }
        client.connections(&mut |conn| writeln!(out, "{}", connection_line(conn)))
    })
}

fn connections_as_json(client: &mut Client, out: &mut dyn Write) -> io::Result<()> {
    let mut before = "[\n";
    client.connections(&mut |conn| {
        write!(out, "{before}{}", serde_json::to_string(conn)?)?;
        before = ",\n";
        Ok(())
    })?;
    writeln!(out, "{}", if before == "[\n" { "[]" } else { "\n]" })
}

/// As JSON for people too.
pub fn json(out: &mut dyn Write, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, what)?;
    writeln!(out)
}

/// Prints; see [`printed`].
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    printed(write(&mut out).and_then(|()| out.flush()))
}

/// How a command ends that has printed. Whoever reads us may have seen enough.
pub fn printed(printed: io::Result<()>) -> anyhow::Result<ExitCode> {
    match printed {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(e.into()),
    }
}

fn fragments_words(fragments: Fragments) -> String {
    let Fragments { came, whole, cut, failed, no_room } = fragments;
    let mut words = format!("{came} came, {whole} packets put together, {cut} cut");
    for (number, what) in [(failed, "incomplete or contradictory"), (no_room, "fragments without room")] {
        if number != 0 {
            words += &format!(", {number} {what}");
        }
    }
    words
}

fn write_overview(
    out: &mut dyn Write,
    overview: &Overview,
    services: &[ServiceView],
    paint: Paint,
) -> io::Result<()> {
    let Overview { version, pid, running_s, forwarded, answered, .. } = overview;
    writeln!(out, "xlvs {version}, process {pid}, running for {}", duration(*running_s))?;
    let interfaces: Vec<_> = overview.interfaces.iter().map(|i| interface_words(i, paint)).collect();
    writeln!(out, "{}  {}", paint.bold("Interfaces "), interfaces.join(", "))?;
    writeln!(out, "{}  {}", paint.bold("Services   "), room(overview.services))?;
    writeln!(out, "{}  {}", paint.bold("Servers    "), room(overview.servers))?;
    writeln!(out, "{}  {}", paint.bold("Connections"), connections_words(overview, paint))?;
    writeln!(
        out,
        "{}  {forwarded} forwarded, {answered} answered with an ICMP error",
        paint.bold("Packets    ")
    )?;
    if overview.fragments != Fragments::default() {
        writeln!(out, "{}  {}", paint.bold("Fragments  "), fragments_words(overview.fragments))?;
    }
    write_services(out, services, paint)?;
    write_unreached(out, overview, paint)?;
    write_reasons(out, &paint.bold("Dropped"), &overview.drops, |n| paint.red(n))?;
    write_reasons(out, &paint.bold("Passed to the director's own stack"), &overview.passes, str::to_owned)
}

fn interface_words(interface: &Interface, paint: Paint) -> String {
    let state = match interface.state {
        InterfaceState::Native => paint.green("native"),
        InterfaceState::Generic => paint.yellow("generic (slow)"),
        InterfaceState::Tc => paint.green("tc"),
        InterfaceState::Gone => paint.red("gone"),
        InterfaceState::Detached => paint.red("detached"),
    };
    format!("{} {state}", interface.name)
}

fn room(room: Room) -> String {
    format!("{} (room for {})", room.used, room.limit)
}

fn connections_words(overview: &Overview, paint: Paint) -> String {
    let c = &overview.connections;
    let used = c.active + c.inactive + c.persistent;
    let fill = used as f64 * 100.0 / c.slots.max(1) as f64;
    let shown = format!("{fill:.1} % of {} slots", c.slots);
    let shown = match fill {
        fill if fill >= FULL.1 => paint.red(&shown),
        fill if fill >= FULL.0 => paint.yellow(&shown),
        _ => shown,
    };
    format!("{} active, {} inactive, {} persistence templates; {shown}", c.active, c.inactive, c.persistent)
}

fn write_services(out: &mut dyn Write, services: &[ServiceView], paint: Paint) -> io::Result<()> {
    if services.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    for service in services.iter().take(SHOWN) {
        writeln!(out, "{}", service_line(service, paint))?;
    }
    match services.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "... and {more} more; `xlvs services` shows all"),
    }
}

fn service_line(view: &ServiceView, paint: Paint) -> String {
    let count = |of: fn(&ServerView) -> u32| view.servers.iter().map(|s| u64::from(of(s))).sum::<u64>();
    let usable = view.servers.iter().filter(|s| s.spec.weight != 0).count();
    let servers = format!("{usable} of {} servers in use", view.servers.len());
    let servers = if usable == 0 { paint.red(&servers) } else { servers };
    format!(
        "{}  {}: {servers}, {} active, {} inactive, {} new/s, {} B/s in",
        paint.bold(&service(&view.spec.key)),
        plan::service_words(&view.spec),
        count(|s| s.active),
        count(|s| s.inactive),
        view.rates.cps,
        view.rates.in_bps
    )
}

fn server_line(view: &ServerView) -> String {
    let ServerView { active, inactive, rates, .. } = view;
    let words = plan::server_words(&view.spec);
    let name = server(&view.spec.key);
    format!("  -> {name:<24} {words}: {active} active, {inactive} inactive, {} new/s", rates.cps)
}

fn write_unreached(out: &mut dyn Write, overview: &Overview, paint: Paint) -> io::Result<()> {
    if overview.unreached.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", paint.bold("Servers without a next hop"))?;
    for unreached in overview.unreached.iter().take(UNREACHED_SHOWN) {
        let (at, of) = (server(&unreached.which.server), service(&unreached.which.service));
        let why = unreached.why.as_deref().unwrap_or("not known yet");
        writeln!(out, "  {} of {of}: {why}", paint.red(&at))?;
    }
    match overview.unreached.len().saturating_sub(UNREACHED_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  ... and {more} more; `xlvs status --json` names all"),
    }
}

fn write_reasons(
    out: &mut dyn Write,
    title: &str,
    reasons: &[Reason],
    painted: impl Fn(&str) -> String,
) -> io::Result<()> {
    if reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    for Reason { label, sentence, packets } in reasons {
        writeln!(out, "  {}  {label}: {sentence}", painted(&format!("{packets:>12}")))?;
    }
    Ok(())
}

fn connection_line(conn: &ConnView) -> String {
    let ConnView { expires_ms, state, client, virt, dest, .. } = conn;
    let protocol = Protocol::from_u8(conn.protocol).map_or("IP", Protocol::listed);
    let seconds = expires_ms / 1000;
    let left = format!("{}:{:02}", seconds / 60, seconds % 60);
    format!("{protocol:<4} {state:<11} {left:>6}  {client} -> {virt} -> {dest}")
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}
