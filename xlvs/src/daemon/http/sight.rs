//! What is seen of the director at one time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use xlvs_health::Standing;
use xlvs_model::view::ServiceView;

use super::ask::Asker;
use super::problem::Problem;
use crate::overview::Overview;
use crate::protocol::{Answer, Request};

/// However many look, the daemon is asked so often.
const FRESH: Duration = Duration::from_secs(1);

/// Everything that is shown and counted.
#[derive(Debug)]
pub struct Sight {
    /// The director as a whole.
    pub overview: Overview,
    /// Services and servers that are in force.
    pub services: Vec<ServiceView>,
    /// How servers fare that are looked after.
    pub standings: Vec<Standing>,
    seen: Instant,
}

/// Looks at the director, for many.
#[derive(Clone)]
pub struct Sights {
    asker: Asker,
    last: Arc<Mutex<Option<Arc<Sight>>>>,
}

impl Sights {
    /// Asks for them so.
    pub fn of(asker: Asker) -> Self {
        Self { asker, last: Arc::default() }
    }

    /// The director as it is, or was a second ago. Who comes while it is being looked at waits for that.
    pub async fn now(&self) -> Result<Arc<Sight>, Problem> {
        let mut last = self.last.lock().await;
        if let Some(sight) = last.as_ref().filter(|sight| sight.seen.elapsed() < FRESH) {
            return Ok(Arc::clone(sight));
        }
        let sight = Arc::new(self.look().await?);
        *last = Some(Arc::clone(&sight));
        Ok(sight)
    }

    /// Something was changed: who looks next sees it.
    pub async fn forget(&self) {
        *self.last.lock().await = None;
    }

    async fn look(&self) -> Result<Sight, Problem> {
        let (Answer::Overview(overview), Answer::Services(services), Answer::Standings(standings)) = (
            self.asker.ask(Request::Overview).await?,
            self.asker.ask(Request::Services(None)).await?,
            self.asker.ask(Request::Standings).await?,
        ) else {
            return Err(Problem::unexpected());
        };
        Ok(Sight { overview: *overview, services, standings, seen: Instant::now() })
    }
}

#[cfg(test)]
pub mod tests {
    use xlvs_core::verdict::DropReason;
    use xlvs_health::{Effective, Health, OperatorWord, Place, Reason};
    use xlvs_model::view::{Rates, Stats};
    use xlvs_model::{Config, ServiceKey};

    use super::*;
    use crate::overview::{self, Interface, InterfaceState, Room};

    /// A director with two services, one of whose servers is out.
    pub fn example() -> Sight {
        let text = "[[service]]\ntcp = \"192.0.2.10:80\"\nservers = [\"10.0.0.11\", { address = \"10.0.0.12\", weight = 0 }]\n\
                    [[service]]\nmark = 7\nfamily = \"inet6\"\n";
        let model = Config::read(text).expect("no mistake").model;
        let mut services: Vec<ServiceView> = model.services().iter().map(ServiceView::from).collect();
        let stats = Stats { conns: 41, in_packets: 100, out_packets: 90, in_bytes: 6000, out_bytes: 90_000 };
        (services[0].stats, services[0].rates) = (stats, Rates { cps: 3, ..Rates::default() });
        (services[0].servers[0].active, services[0].servers[1].inactive) = (2, 5);
        let mut out = services[0].servers[0].spec;
        out.key.addr = [10, 0, 0, 13].into();
        let standing = Standing {
            service: services[0].spec.key,
            stated: out,
            effective: Effective { place: Place::Out, reason: Reason::CheckFailed },
            health: Health::Down,
            operator: OperatorWord::Enabled,
            agent: None,
            detail: Some("status 503".to_owned()),
            warning: Some("its certificate expires on 2026-12-10T00:00:00Z".to_owned()),
        };
        assert!(matches!(services[1].spec.key, ServiceKey::Mark { .. }));
        Sight { overview: overview(), services, standings: vec![standing], seen: Instant::now() }
    }

    fn overview() -> Overview {
        let dropped = DropReason::ALL[0];
        let interface = |name: &str, state| Interface { name: name.to_owned(), state };
        Overview {
            version: "0.1.0".to_owned(),
            pid: 1,
            running_s: 60,
            interfaces: vec![
                interface("eth0", InterfaceState::Native),
                interface("eth1", InterfaceState::Gone),
            ],
            services: Room { used: 2, limit: 100 },
            servers: Room { used: 2, limit: 1000 },
            unreached: Vec::new(),
            connections: overview::Connections {
                active: 2,
                inactive: 5,
                persistent: 0,
                slots: 4096,
                expired_by_packets: 1,
            },
            forwarded: 190,
            answered: 0,
            fragments: overview::Fragments::default(),
            work: overview::WorkDone { sweeps: 60, swept: 34, sweeping_us: 1500, ..Default::default() },
            revision: 3,
            drops: vec![overview::Reason {
                label: dropped.label().to_owned(),
                sentence: dropped.sentence().to_owned(),
                packets: 9,
            }],
            passes: Vec::new(),
        }
    }
}
