//! Listings, and the table as commands.

use std::io::{self, Write};

use xlvs_model::change::{SyncDaemon, SyncRole};
use xlvs_model::spec::Protocol;
use xlvs_model::view::{ConnView, ServiceView};
use xlvs_model::{Refusal, ServiceKey};

use crate::backend::Backend;
use crate::failure::{Failure, refusal_text};
use crate::layout;
use crate::meant::{Listing, Subject};
use crate::names::{Printer, Resolver};
use crate::order;
use crate::table::Command;
use crate::unsaid::unsaid;

/// Prints what was asked for.
pub(crate) fn list(
    listing: &Listing,
    backend: &mut dyn Backend,
    names: &dyn Resolver,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut printer = printer(listing.numeric, names);
    match listing.subject {
        Subject::Services => list_services(listing, backend, &mut printer, out),
        Subject::Service(key) => list_service(&key, listing, backend, &mut printer, out),
        Subject::Connections { engine_data } => list_connections(engine_data, backend, &mut printer, out),
        Subject::Timeouts => list_timeouts(backend, out),
        Subject::Daemons => list_daemons(backend, out),
    }
}

/// Prints the commands that make the present table, and on `err` what these do not say.
pub(crate) fn save(
    numeric: bool,
    backend: &mut dyn Backend,
    names: &dyn Resolver,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let mut printer = printer(numeric, names);
    let mut services = backend.services(None).map_err(failed)?;
    sort(&mut services);
    for service in &services {
        out.write_all(layout::rules(service, &mut printer).as_bytes()).map_err(failed)?;
        if let Some(unsaid) = unsaid(&service.spec) {
            writeln!(err, "{unsaid}").map_err(failed)?;
        }
    }
    Ok(())
}

fn printer(numeric: bool, names: &dyn Resolver) -> Printer<'_> {
    if numeric { Printer::numeric() } else { Printer::named(names) }
}

/// A reader that has seen enough and gone is not worth a word.
fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::listing(""),
        _ => Failure::listing(error.to_string()),
    }
}

fn list_services(
    listing: &Listing,
    backend: &mut dyn Backend,
    printer: &mut Printer<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let size = backend.info().map_err(failed)?.table_size;
    writeln!(out, "IP Virtual Server version 1.2.1 (size={size})").map_err(failed)?;
    let services = backend.services(None).map_err(failed)?;
    print_services(services, listing, printer, out).map_err(failed)
}

fn list_service(
    key: &ServiceKey,
    listing: &Listing,
    backend: &mut dyn Backend,
    printer: &mut Printer<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let services = backend.services(Some(key)).map_err(failed)?;
    if services.is_empty() {
        return Err(Failure::listing(refusal_text(Command::List, &Refusal::NoService)));
    }
    print_services(services, listing, printer, out).map_err(failed)
}

fn print_services(
    mut services: Vec<ServiceView>,
    listing: &Listing,
    printer: &mut Printer<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (columns, counts) = (listing.columns, listing.counts);
    if listing.sorted {
        sort(&mut services);
    }
    out.write_all(layout::title(columns).as_bytes())?;
    for service in &services {
        out.write_all(layout::service_line(service, columns, counts, printer).as_bytes())?;
        for server in &service.servers {
            let line = layout::server_line(server, &service.spec.key, columns, counts, printer);
            out.write_all(line.as_bytes())?;
        }
    }
    Ok(())
}

fn sort(services: &mut Vec<ServiceView>) {
    order::sort_services(services);
    for service in services {
        order::sort_servers(&mut service.servers);
    }
}

fn list_connections(
    engine_data: bool,
    backend: &mut dyn Backend,
    printer: &mut Printer<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    out.write_all(connection_title(engine_data).as_bytes()).map_err(failed)?;
    backend
        .connections(&mut |connection| {
            out.write_all(connection_line(connection, engine_data, printer).as_bytes())
        })
        .map_err(failed)
}

fn connection_title(engine_data: bool) -> String {
    let [state, source, virt, dest] = ["state", "source", "virtual", "destination"];
    let columns = format!("pro expire {state:<11} {source:<18} {virt:<18} ");
    let rest = if engine_data { format!("{dest:<18} {:<16} pe_data", "pe name") } else { dest.to_owned() };
    format!("IPVS connection entries\n{columns}{rest}\n")
}

fn connection_line(connection: &ConnView, engine_data: bool, printer: &mut Printer<'_>) -> String {
    let protocol = Protocol::from_u8(connection.protocol);
    // A mark's template belongs to no protocol.
    let label = protocol.map_or("IP", Protocol::listed);
    let seconds = connection.expires_ms / 1000;
    let expires = format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let [source, virt, dest] = [connection.client, connection.virt, connection.dest]
        .map(|at| layout::shortened(printer.address(at.ip(), at.port(), protocol)));
    let state = &connection.state;
    let columns = format!("{label:<3} {expires:<6} {state:<11} {source:<18} {virt:<18}");
    match (&connection.engine, &connection.engine_data) {
        // The title's columns and these do not agree, in the original either.
        (Some(name), Some(data)) if engine_data => format!("{columns} {dest:<16} {name:<18} {data}\n"),
        _ => format!("{columns} {dest}\n"),
    }
}

fn list_timeouts(backend: &mut dyn Backend, out: &mut dyn Write) -> Result<(), Failure> {
    let t = backend.timeouts().map_err(failed)?;
    writeln!(out, "Timeout (tcp tcpfin udp): {} {} {}", t.tcp, t.tcp_fin, t.udp).map_err(failed)
}

fn list_daemons(backend: &mut dyn Backend, out: &mut dyn Write) -> Result<(), Failure> {
    for daemon in backend.info().map_err(failed)?.daemons {
        out.write_all(daemon_line(&daemon).as_bytes()).map_err(failed)?;
    }
    Ok(())
}

fn daemon_line(daemon: &SyncDaemon) -> String {
    let SyncDaemon { interface, syncid, maxlen, port, ttl, .. } = daemon;
    let role = match daemon.role {
        SyncRole::Master => "master",
        SyncRole::Backup => "backup",
    };
    let group = daemon.group.map(|group| format!(", group={group}")).unwrap_or_default();
    format!(
        "{role} sync daemon (mcast={interface}, syncid={syncid}, maxlen={maxlen}{group}, port={port}, ttl={ttl})\n"
    )
}
