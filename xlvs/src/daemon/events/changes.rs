//! What changes and checks' news are to those who watch.

use std::collections::HashMap;

use xlvs_health::{News, Reason};
use xlvs_model::{Change, Model, ServerKey, ServiceKey};

use crate::event::{By, Happening, Which};

/// What each of these changes does to what is in force, which is `before` before the first of them.
pub fn of_changes(changes: &[Change], before: &Model, by: impl Fn(&Which) -> By) -> Vec<Vec<Happening>> {
    let mut weights = HashMap::new();
    changes.iter().map(|change| of_change(change, before, &mut weights, &by)).collect()
}

/// `weights`: what changes before this one made of servers' weights.
fn of_change(
    change: &Change,
    before: &Model,
    weights: &mut HashMap<Which, u32>,
    by: &impl Fn(&Which) -> By,
) -> Vec<Happening> {
    match change {
        Change::AddService(spec) => {
            vec![Happening::ServiceAdded { service: spec.key, by: by(&any_of(spec.key)) }]
        }
        Change::DeleteService(key) => {
            vec![Happening::ServiceRemoved { service: *key, by: by(&any_of(*key)) }]
        }
        Change::Flush => {
            let gone = before.services().iter().map(|service| service.spec.key);
            gone.map(|service| Happening::ServiceRemoved { service, by: by(&any_of(service)) }).collect()
        }
        Change::AddServer(service, spec) => {
            let which = Which { service: *service, server: spec.key };
            weights.insert(which, spec.weight);
            vec![Happening::ServerAdded { which, weight: spec.weight, by: by(&which) }]
        }
        Change::DeleteServer(service, server) => {
            let which = Which { service: *service, server: *server };
            vec![Happening::ServerRemoved { which, by: by(&which) }]
        }
        Change::EditServer(service, spec) => {
            let which = Which { service: *service, server: spec.key };
            let weight_before = || Some(before.service(service)?.server(&spec.key)?.weight);
            let from = weights.insert(which, spec.weight).or_else(weight_before);
            let changed = from.filter(|from| *from != spec.weight);
            let event = |from| Happening::WeightChanged { which, from, to: spec.weight, by: by(&which) };
            changed.map(event).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Checks and agents neither add nor remove services, so that nobody asks them about one.
fn any_of(service: ServiceKey) -> Which {
    Which { service, server: ServerKey { addr: [0, 0, 0, 0].into(), port: 0 } }
}

/// What is told of a server or service that checks, agents or operators have moved.
pub fn of_news(news: &News) -> Option<Happening> {
    match news {
        News::Server { server: (service, server), effective, before, detail } => {
            let which = Which { service: *service, server: *server };
            let is_failure = effective.reason.is_failure();
            let reason = match detail.as_ref().filter(|_| is_failure) {
                Some(detail) => format!("{}: {detail}", effective.reason),
                None => effective.reason.to_string(),
            };
            match (before.is_some_and(|before| before.reason.is_failure()), is_failure) {
                (false, true) => Some(Happening::ServerDown { which, reason }),
                (true, false) => Some(Happening::ServerUp { which, reason }),
                (true, true) if effective.reason == Reason::Flapping => {
                    Some(Happening::ServerHeld { which, reason })
                }
                _ => None,
            }
        }
        News::Warning { server: (service, server), of } => {
            let which = Which { service: *service, server: *server };
            Some(Happening::ServerWarning { which, warning: of.clone() })
        }
        News::Quorum { service, is_up: true } => Some(Happening::QuorumGained { service: *service }),
        News::Quorum { service, is_up: false } => Some(Happening::QuorumLost { service: *service }),
    }
}

/// Who made a server stand elsewhere, by the news of it: the reason that holds now, or the one that is gone. A sorry server
/// has no news of its own, and is its checked colleagues' doing; where there are none, an operator spoke.
pub fn who_settled(news: &[News]) -> impl Fn(&Which) -> By {
    let mut servers = HashMap::new();
    let mut quorums = Vec::new();
    for item in news {
        match item {
            News::Server { server: (service, server), effective, before, .. } => {
                let which = Which { service: *service, server: *server };
                let reason = match effective.reason {
                    Reason::AsConfigured => before.map_or(Reason::AsConfigured, |before| before.reason),
                    reason => reason,
                };
                servers.insert(which, who(reason));
            }
            News::Quorum { service, .. } => quorums.push(*service),
            News::Warning { .. } => {}
        }
    }
    move |which| {
        let by_quorum = quorums.contains(&which.service).then_some(By::Check);
        servers.get(which).copied().or(by_quorum).unwrap_or(By::Operator)
    }
}

fn who(reason: Reason) -> By {
    match reason {
        Reason::Disabled | Reason::Drained | Reason::AsConfigured => By::Operator,
        Reason::CheckFailed | Reason::Flapping | Reason::AwaitsFirstCheck => By::Check,
        Reason::Panic | Reason::NoQuorum => By::Check,
        Reason::AgentMaint | Reason::AgentDown | Reason::AgentDrain | Reason::AgentShare(_) => By::Agent,
    }
}

#[cfg(test)]
mod tests {
    use xlvs_health::{Effective, Place};
    use xlvs_model::spec::{Method, Protocol, Scheduler};
    use xlvs_model::{ServerSpec, ServiceSpec};

    use super::*;

    const SERVICE: ServiceKey = ServiceKey::Address {
        protocol: Protocol::Tcp,
        addr: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        port: 80,
    };

    fn server(host: u8, weight: u32) -> ServerSpec {
        let key = ServerKey { addr: [10, 0, 0, host].into(), port: 80 };
        ServerSpec { weight, ..ServerSpec::new(key, Method::Masquerade) }
    }

    fn which(host: u8) -> Which {
        Which { service: SERVICE, server: server(host, 0).key }
    }

    fn told(changes: &[Change], before: &Model) -> Vec<Happening> {
        of_changes(changes, before, |_| By::Operator).concat()
    }

    #[test]
    fn changes_are_told_with_the_weight_before() {
        let added = [
            Change::AddService(ServiceSpec::new(SERVICE, Scheduler::Rr)),
            Change::AddServer(SERVICE, server(1, 3)),
        ];
        let (nothing, by) = (Model::default(), By::Operator);
        let events = [
            Happening::ServiceAdded { service: SERVICE, by },
            Happening::ServerAdded { which: which(1), weight: 3, by },
        ];
        assert_eq!(told(&added, &nothing), events);

        let mut model = nothing;
        added.iter().for_each(|change| model.apply(change).expect("it is accepted"));
        let limited = ServerSpec { upper: 9, ..server(1, 3) };
        assert_eq!(told(&[Change::EditServer(SERVICE, limited)], &model), [], "the weight stays");
        let twice = [server(1, 5), server(1, 0)].map(|spec| Change::EditServer(SERVICE, spec));
        let events =
            [(3, 5), (5, 0)].map(|(from, to)| Happening::WeightChanged { which: which(1), from, to, by });
        assert_eq!(told(&twice, &model), events);
        assert_eq!(told(&[Change::Flush], &model), [Happening::ServiceRemoved { service: SERVICE, by }]);
    }

    fn news(host: u8, before: Option<Reason>, now: Reason) -> News {
        let standing = |reason| Effective { place: Place::In(1), reason };
        let detail = Some("connection refused".to_owned());
        News::Server {
            server: (SERVICE, server(host, 1).key),
            effective: standing(now),
            before: before.map(standing),
            detail,
        }
    }

    #[test]
    fn only_failures_and_their_end_are_told() {
        let down = of_news(&news(1, Some(Reason::AsConfigured), Reason::CheckFailed));
        let reason = "a check failed: connection refused".to_owned();
        assert_eq!(down, Some(Happening::ServerDown { which: which(1), reason }));
        let up = of_news(&news(1, Some(Reason::CheckFailed), Reason::AsConfigured));
        assert_eq!(up, Some(Happening::ServerUp { which: which(1), reason: "as configured".to_owned() }));
        let held = of_news(&news(1, Some(Reason::CheckFailed), Reason::Flapping));
        let reason = "it fails too often and is held out: connection refused".to_owned();
        assert_eq!(held, Some(Happening::ServerHeld { which: which(1), reason }));
        assert_eq!(of_news(&news(1, None, Reason::AsConfigured)), None);
        assert_eq!(of_news(&news(1, Some(Reason::CheckFailed), Reason::AgentDown)), None);
    }

    #[test]
    fn who_moved_a_server_is_known_by_the_reason() {
        let news = [
            news(1, Some(Reason::AsConfigured), Reason::AgentShare(50)),
            news(2, Some(Reason::CheckFailed), Reason::AsConfigured),
            news(3, Some(Reason::AsConfigured), Reason::Drained),
        ];
        let by = who_settled(&news);
        assert_eq!(
            [1, 2, 3, 4].map(|host| by(&which(host))),
            [By::Agent, By::Check, By::Operator, By::Operator]
        );
        let lost = [News::Quorum { service: SERVICE, is_up: false }];
        assert_eq!(who_settled(&lost)(&which(9)), By::Check, "a sorry server");
    }
}
