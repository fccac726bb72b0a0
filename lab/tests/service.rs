//! The daemon as a service: what it tells its supervisor, a socket that was opened for it, and no more privileges than the unit gives.

mod common;

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{Method, directed_by, serve};
use xlvs_lab::client::ephemeral;
use xlvs_lab::{Director, Lab, NameServer, TunnelEnd};

const ASK: u16 = 7000;
const UNIT: &str = include_str!("../../dist/xlvs.service");

fn prepared(lab: &Lab) -> Result<Director<'_>> {
    Director::prepare(lab, &xlvs_lab::director::binary()?)
}

/// The supervisor's ear.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn at(path: &Path) -> Result<Supervisor> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Supervisor(socket))
    }

    /// Waits until it is told this; what it is told besides meanwhile does not matter.
    fn hears(&self, what: &str) -> Result<String> {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).with_context(|| format!("wait for {what}"))?;
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|line| line == what) {
                return Ok(said);
            }
        }
    }
}

#[test]
fn a_supervisor_is_told_how_the_daemon_fares() -> Result<()> {
    let lab = Lab::two_network(0)?;
    let (path, file) = (lab.directory().join("notify"), lab.directory().join("xlvs.toml"));
    std::fs::write(&file, "interfaces = [\"l0\", \"l1\"]\n")?;
    let supervisor = Supervisor::at(&path)?;
    let director = Director::prepare_on(&lab.director, &[], lab.directory(), &xlvs_lab::director::binary()?)?
        .with_options(&["--config", &file.to_string_lossy()])
        .launched_by(&["env", &format!("NOTIFY_SOCKET={}", path.display()), "WATCHDOG_USEC=400000"]);
    directed_by(director, &lab, |_, director| {
        let said = supervisor.hears("READY=1")?;
        ensure!(said.contains("STATUS=directing by l0, l1"), "{said}");
        supervisor.hears("WATCHDOG=1")?;
        supervisor.hears("WATCHDOG=1")?;

        std::fs::write(&file, "interfaces = [\"l0\"]\n")?;
        director.hang_up()?;
        let said = supervisor.hears("RELOADING=1")?;
        ensure!(said.contains("MONOTONIC_USEC="), "{said}");
        let said = supervisor.hears("READY=1")?;
        ensure!(said.lines().any(|line| line == "STATUS=directing by l0"), "{said}");
        // A file with a mistake leaves everything as it was, and ready.
        std::fs::write(&file, "nonsense")?;
        let reply = director.shell("xlvs reload")?;
        ensure!(reply.code == Some(1), "{reply:?}");
        supervisor.hears("RELOADING=1")?;
        supervisor.hears("READY=1")?;

        std::fs::write(&file, "interfaces = [\"l0\"]\n")?;
        director.stop()?;
        supervisor.hears("STOPPING=1")?;
        director.restart()
    })
}

#[test]
fn a_socket_that_was_opened_for_the_daemon_is_its_own_and_stays() -> Result<()> {
    let lab = Lab::two_network(1)?;
    let director = prepared(&lab)?;
    std::fs::create_dir_all(director.run_dir())?;
    let socket = director.run_dir().join("control.sock");
    let director = director.launched_by(&["systemd-socket-activate", "--listen", &socket.to_string_lossy()]);
    directed_by(director, &lab, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        serve(lab, director, ("-t", vip), "rr", &[(0, Method::Nat, 1)])?;
        director.stop()?;
        ensure!(socket.exists(), "who opened the socket does not find it again");
        std::fs::remove_file(&socket)?;
        director.restart()
    })
}

/// The capabilities of the unit, as `setpriv` names them.
fn bounds() -> Result<String> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit bounds nothing")?.split(' ');
    let kept = names.map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()));
    Ok(std::iter::once("-all".to_owned()).chain(kept).collect::<Vec<_>>().join(","))
}

/// A datagram whose fragments the daemon puts together, and sends on itself.
fn in_fragments(lab: &Lab, vip: SocketAddr) -> Result<()> {
    let client = lab.client();
    let socket = client.datagrams(ephemeral(client.address_towards(vip)), vip)?;
    socket.send(&[7; 3000])?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer)?;
    ensure!(length > 3000 && answer.starts_with(b"rs"), "{length} bytes came back");
    Ok(())
}

#[test]
fn the_units_capabilities_are_enough() -> Result<()> {
    let lab = Lab::two_network(2)?;
    let bounds = bounds()?;
    let director =
        prepared(&lab)?.launched_by(&["setpriv", "--bounding-set", &bounds, "--no-new-privs", "--"]);
    directed_by(director, &lab, |lab, director| {
        let (_names, _ends) = (NameServer::on_all(lab, ASK)?, TunnelEnd::on_all(lab)?);
        for (number, method) in [(0, Method::Nat), (1, Method::Dr), (2, Method::Tun)] {
            let vip = SocketAddr::new(lab.vip(number).into(), ASK);
            for kind in ["-t", "-u"] {
                serve(lab, director, (kind, vip), "rr", &common::all(lab, method))?;
            }
            let names = lab.client().ask_times(vip, 10)?;
            ensure!(
                names.iter().any(|name| name == "rs1") && names.iter().any(|name| name == "rs2"),
                "{names:?}"
            );
            in_fragments(lab, vip).with_context(|| format!("{method:?}"))?;
        }
        director.kill9()?;
        director.restart()?;
        let listing = director.must("-Ln")?;
        ensure!(listing.matches("-> ").count() == 1 + 3 * 2 * 2, "{listing}");
        Ok(())
    })
}
