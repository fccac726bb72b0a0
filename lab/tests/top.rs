//! `xlvs top`, with and without a terminal.

mod common;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use common::{Method, all, serve, with_director};
use xlvs_lab::{Layout, NameServer};

const ASK: u16 = 7000;

/// Shows it on a terminal of 80 × 24, presses keys, and prints all that was drawn; each key waits for what it leads to.
const DRIVE: &str = r#"
rm -f keys shown; mkfifo keys
timeout 60 script -qefc 'stty cols 80 rows 24; xlvs top' shown <keys >/dev/null 2>&1 &
exec 3>keys
drawn() { n=0; until grep -aqs "$1" shown; do n=$((n+1)); [ $n -lt 400 ] || { cat -v shown; exit 9; }; sleep 0.1; done; }
drawn '10\.1\.0\.12:7000'
printf s >&3; drawn 'conn/s\]'
# Only what changes is drawn: of the filter, each letter behind those before.
printf '/.12' >&3; drawn '2_'
printf '\rq' >&3
exec 3>&-
wait $!
"#;

#[test]
fn services_are_shown_on_a_terminal_and_printed_once_without_one() -> Result<()> {
    with_director(Layout::TwoNetwork, 2, |lab, director| {
        let vip = SocketAddr::new(lab.vip(0).into(), ASK);
        let _names = NameServer::on_all(lab, ASK)?;
        serve(lab, director, ("-t", vip), "wlc", &all(lab, Method::Nat))?;
        lab.client().ask_times(vip, 10)?;
        let once = director.shell("xlvs top --once </dev/null")?;
        ensure!(once.code == Some(0), "{once:?}");
        ensure!(once.out.lines().all(|line| line.chars().count() <= 80), "{}", once.out);
        for shown in [&format!("TCP {vip} wlc"), "10.1.0.11:7000", "10.1.0.12:7000", "ACTIVE"] {
            ensure!(once.out.contains(shown), "{shown} is missing:\n{}", once.out);
        }
        let terminal = director.shell(DRIVE)?;
        ensure!(terminal.code == Some(0), "{terminal:?}");
        let nowhere = director.shell("xlvs top </dev/null | cat; true")?;
        ensure!(nowhere.err.contains("`xlvs top --once` prints one screen"), "{nowhere:?}");
        Ok(())
    })
}
