//! Recorded frames on the host: the director, and behind it a stack, between two ends that only send what a fixture says.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use xlvs_core::errand::{ErrandView, Kind};
use xlvs_core::verdict::Verdict;
use xlvs_core::wire::ip_protocol;
use xlvs_datapath::fragments::{Done, Errands, HIGH_THRESH, Outgoing, Reassembler};
use xlvs_datapath::tables::Tables;
use xlvs_lab::frames::{self, Command, Seen, Side, Stage, site};

use super::director::{self, CLIENT_SIDE, Director, SERVER_SIDE, Ways};
use super::stack::{Mark, Network, Sent, Stack};

/// Milliseconds between a frame and the next.
const STEP_MS: u64 = 25;
/// Where the identifications of fragments begin, which are not compared.
const SEED: u64 = 1;

/// Plays a fixture: `name`, `steps` (for each what was `seen`, and `conn`), `after`.
pub fn play(fixture: &Value) -> Result<Value> {
    let tables = director::tables();
    frames::play(fixture, &mut Host::new(&tables)?)
}

struct Host<'t> {
    network: Rc<Network>,
    director: Director<'t>,
    stack: Stack,
    /// What the daemon does.
    errands: Errands,
    now: Duration,
}

impl<'t> Host<'t> {
    fn new(tables: &'t Arc<Tables>) -> Result<Self> {
        let network = Rc::new(Network::of_the_recordings()?);
        let director = Director::among(tables, Rc::clone(&network) as Rc<dyn Ways>);
        let time = Duration::from_secs(site::REASSEMBLY_S);
        let errands = Errands::new(Reassembler::new((time, time), HIGH_THRESH), SEED);
        Ok(Self { stack: Stack::new(Rc::clone(&network)), network, director, errands, now: Duration::ZERO })
    }

    fn pass(&mut self, ms: u64) -> Vec<Sent> {
        self.director.pass(ms);
        self.now += Duration::from_millis(ms);
        let done = self.errands.tick(self.now, &self.director);
        let mut sent = self.settle(done);
        let answers = self.stack.pass(ms);
        sent.extend(self.see_off(answers));
        sent
    }

    /// What the stack sends leaves by the director.
    fn see_off(&self, sent: Vec<Sent>) -> Vec<Sent> {
        let leaves = |sent: Sent| match sent {
            Sent { is_forwarded: true, .. } => sent,
            Sent { ifindex, frame, .. } => Sent { frame: self.director.see_off(ifindex, frame), ..sent },
        };
        sent.into_iter().map(leaves).collect()
    }

    fn run_errand(&mut self, kind: Kind, ifindex: u32, frame: &[u8]) -> Vec<Sent> {
        let errand = ErrandView { kind, ifindex, cut_to: self.director.cut_to(), frame };
        let done = self.errands.run(&errand, self.now, &self.director);
        self.settle(done)
    }

    fn settle(&mut self, done: Done) -> Vec<Sent> {
        let mut sent: Vec<_> = done.sent.into_iter().map(forwarded).collect();
        for Outgoing { ifindex, frame } in done.passed {
            let answers = self.stack.receive(ifindex, &frame);
            sent.extend(self.see_off(answers));
        }
        sent
    }
}

impl Stage for Host<'_> {
    fn tune(&mut self, name: &str, value: u32) -> Result<()> {
        self.director.sysctl(name, value)
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Ipvsadm(words) => {
                let printed = self.director.ipvsadm(words);
                ensure!(printed.rc == 0, "{}", printed.err.trim_end());
            }
            Command::Ip(words) => {
                self.network.ip(words)?;
                self.director.resolve();
            }
            Command::Mark { mark, is_v6, protocol, port } => {
                let number = match *protocol {
                    "tcp" => ip_protocol::TCP,
                    "udp" => ip_protocol::UDP,
                    other => bail!("{other} packets cannot be marked"),
                };
                self.director.mark(*mark, *is_v6, *port, number == ip_protocol::UDP)?;
                self.stack.mark(Mark { mark: *mark, is_v6: *is_v6, protocol: number, port: *port });
            }
            Command::Nothing => {}
        }
        Ok(())
    }

    fn send(&mut self, side: Side, frame: &[u8]) -> Result<Vec<Seen>> {
        let ingress = if side == Side::Server { SERVER_SIDE } else { CLIENT_SIDE };
        let (verdict, frame) = self.director.forward(ingress, frame);
        let mut sent = match verdict {
            Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } | Verdict::Answer { ifindex } => {
                vec![forwarded(Outgoing { ifindex, frame })]
            }
            Verdict::Cut { ifindex } => self.run_errand(Kind::Cut, ifindex, &frame),
            Verdict::PutTogether { ifindex } => self.run_errand(Kind::PutTogether, ifindex, &frame),
            Verdict::Pass(_) | Verdict::Local { .. } => {
                let sent = self.stack.receive(ingress, &frame);
                self.see_off(sent)
            }
            Verdict::Drop(_) => Vec::new(),
        };
        sent.extend(self.pass(STEP_MS));
        Ok(seen(sent))
    }

    fn wait(&mut self, time: Duration) -> Result<Vec<Seen>> {
        Ok(seen(self.pass(time.as_millis() as u64)))
    }

    fn list(&mut self, option: &str) -> Result<String> {
        Ok(self.director.ipvsadm(&[option]).out)
    }
}

fn forwarded(Outgoing { ifindex, frame }: Outgoing) -> Sent {
    Sent { ifindex, frame, is_forwarded: true }
}

fn seen(sent: Vec<Sent>) -> Vec<Seen> {
    let at = |ifindex| if ifindex == SERVER_SIDE { Side::Server } else { Side::Client };
    sent.into_iter().map(|sent| Seen { at: at(sent.ifindex), frame: sent.frame }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use xlvs_lab::frames::compare::{Difference, difference};

    use super::*;

    const GROUPS: [&str; 9] =
        ["forward", "edges", "icmp", "fragments", "refused", "sctp-esp", "reuse", "misc", "local"];

    fn difference_of(fixture: &Value) -> Option<Difference> {
        let ours = play(fixture).unwrap_or_else(|why| json!({ "error": format!("{why:#}") }));
        difference(fixture, &ours)
    }

    /// The list's line for a fixture that differs.
    fn listed(group: &str, fixture: &Value, difference: &Difference) -> String {
        let kind = if matches!(difference, Difference::Entries(_)) { "entries " } else { "" };
        format!("{kind}{group}/{}", fixture["name"].as_str().unwrap())
    }

    #[test]
    fn recorded_frames_leave_as_they_left_the_kernel() {
        let place = format!("{}/../tests/oracle/packets", env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(format!("{place}/{name}")).expect(name);
        let not_yet = read("not-yet.txt");
        let not_yet: BTreeSet<String> = not_yet
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(str::to_owned)
            .collect();
        let mut differing = BTreeSet::new();
        for group in GROUPS {
            let file = serde_json::from_str(&read(&format!("{group}.json"))).expect("JSON");
            let all = frames::fixtures(file).expect("fixtures");
            let before = differing.len();
            for fixture in &all {
                let Some(difference) = difference_of(fixture) else { continue };
                let line = listed(group, fixture, &difference);
                if std::env::var_os("XLVS_LIST_DIFFERING").is_some() {
                    println!("differs {line}: {difference}");
                }
                differing.insert(line);
            }
            println!("{group}: {} of {} alike", all.len() - (differing.len() - before), all.len());
        }
        let worse: Vec<_> = differing.difference(&not_yet).collect();
        let better: Vec<_> = not_yet.difference(&differing).collect();
        assert!(worse.is_empty(), "these differ now: {worse:#?}");
        assert!(better.is_empty(), "these are alike now; take them out of not-yet.txt: {better:#?}");
    }
}
