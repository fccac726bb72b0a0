//! What is in force, against what is stated.
//!
//! Checks, agents and operators take servers away, put others in their place, and change weights. What files and commands
//! stated must come back when the reason is gone, so it is remembered for every server that is not in force as stated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xlvs_model::state::Service;
use xlvs_model::{Change, Model, ServerKey, ServerSpec, ServiceKey};

/// Servers that are not in force as stated, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(ServiceKey, Held)>", into = "Vec<(ServiceKey, Held)>")]
pub struct Overlay(BTreeMap<ServiceKey, Held>);

/// Those of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// As they are stated.
    servers: Vec<ServerSpec>,
    /// In force though nobody stated it.
    sorry: Option<ServerKey>,
}

impl From<Vec<(ServiceKey, Held)>> for Overlay {
    fn from(list: Vec<(ServiceKey, Held)>) -> Self {
        Self(list.into_iter().collect())
    }
}

impl From<Overlay> for Vec<(ServiceKey, Held)> {
    fn from(overlay: Overlay) -> Self {
        overlay.0.into_iter().collect()
    }
}

impl Overlay {
    /// What is stated, of what is in force.
    pub fn stated(&self, in_force: &Model) -> Model {
        let mut model = in_force.clone();
        for (key, held) in &self.0 {
            let Some(service) = in_force.service(key) else { continue };
            // What was stated once can be stated again.
            let mut restate = |change: Change| _ = model.apply(&change);
            if let Some(sorry) = held.sorry {
                restate(Change::DeleteServer(*key, sorry));
            }
            for spec in &held.servers {
                let is_there = service.server(&spec.key).is_some() && held.sorry != Some(spec.key);
                restate(if is_there {
                    Change::EditServer(*key, *spec)
                } else {
                    Change::AddServer(*key, *spec)
                });
            }
        }
        model
    }

    /// The stated servers of one service, of those in force.
    pub fn stated_servers(&self, in_force: &Service) -> Vec<ServerSpec> {
        let Some(held) = self.0.get(&in_force.spec.key) else { return in_force.servers.clone() };
        let is_held = |key: ServerKey| held.servers.iter().find(|spec| spec.key == key);
        let present = in_force.servers.iter().filter(|spec| held.sorry != Some(spec.key));
        let mut stated: Vec<ServerSpec> = present.map(|spec| *is_held(spec.key).unwrap_or(spec)).collect();
        let gone = held.servers.iter().filter(|spec| !stated.iter().any(|s| s.key == spec.key)).copied();
        let gone: Vec<ServerSpec> = gone.collect();
        stated.extend(gone);
        stated
    }

    /// A service is to be in force otherwise than stated, or as stated again.
    pub fn hold(&mut self, key: ServiceKey, stated: &[ServerSpec], in_force: &[ServerSpec]) {
        let as_stated = |spec: &ServerSpec| in_force.contains(spec);
        let servers = stated.iter().filter(|spec| !as_stated(spec)).copied().collect();
        let unstated = in_force.iter().map(|spec| spec.key).find(|key| !stated.iter().any(|s| s.key == *key));
        let held = Held { servers, sorry: unstated };
        if held == Held::default() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, held);
        }
    }

    /// Commands changed what is in force, and by that stated something. What they did not speak of stays held.
    pub fn heard(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::AddServer(key, spec) | Change::EditServer(key, spec) => {
                    let held = self
                        .0
                        .get_mut(key)
                        .and_then(|held| held.servers.iter_mut().find(|s| s.key == spec.key));
                    held.into_iter().for_each(|held| *held = *spec);
                }
                Change::DeleteServer(key, server) => {
                    if let Some(held) = self.0.get_mut(key) {
                        held.servers.retain(|spec| spec.key != *server);
                        held.sorry = held.sorry.filter(|sorry| sorry != server);
                    }
                }
                Change::DeleteService(key) => drop(self.0.remove(key)),
                Change::Flush => self.0.clear(),
                _ => {}
            }
        }
    }

    /// Services of which anything is held.
    pub fn services(&self) -> impl Iterator<Item = ServiceKey> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use xlvs_model::ServiceSpec;
    use xlvs_model::spec::{Method, Protocol, Scheduler};

    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::Address { protocol: Protocol::Tcp, addr: [192, 0, 2, 1].into(), port: 80 }
    }

    fn server(host: u8, weight: u32) -> ServerSpec {
        let key = ServerKey { addr: [10, 0, 0, host].into(), port: 80 };
        ServerSpec { weight, ..ServerSpec::new(key, Method::Masquerade) }
    }

    fn model(servers: &[ServerSpec]) -> Model {
        let mut model = Model::default();
        model.apply(&Change::AddService(ServiceSpec::new(key(), Scheduler::Rr))).expect("a service");
        servers.iter().for_each(|server| model.apply(&Change::AddServer(key(), *server)).expect("a server"));
        model
    }

    /// 1 was taken away, 2 has weight 0, 3 is as stated, 99 stands in.
    fn held() -> (Overlay, Model) {
        let stated = [server(1, 1), server(2, 2), server(3, 3)];
        let in_force = [server(2, 0), server(3, 3), server(99, 1)];
        let mut overlay = Overlay::default();
        overlay.hold(key(), &stated, &in_force);
        (overlay, model(&in_force))
    }

    #[track_caller]
    fn states(overlay: &Overlay, in_force: &Model, servers: &[ServerSpec]) {
        let stated = overlay.stated(in_force);
        let [service] = stated.services() else { panic!("one service") };
        let mut list = service.servers.clone();
        list.sort_by_key(|spec| spec.key);
        assert_eq!(list, servers);
        let mut list = overlay.stated_servers(&in_force.services()[0]);
        list.sort_by_key(|spec| spec.key);
        assert_eq!(list, servers);
    }

    #[test]
    fn what_was_stated_is_told_from_what_is_in_force() {
        let (overlay, in_force) = held();
        states(&overlay, &in_force, &[server(1, 1), server(2, 2), server(3, 3)]);
        let text = serde_json::to_string(&overlay).expect("to JSON");
        assert_eq!(serde_json::from_str::<Overlay>(&text).expect("from JSON"), overlay);
    }

    #[test]
    fn nothing_is_held_of_a_service_that_is_in_force_as_stated() {
        let (mut overlay, _) = held();
        let stated = [server(1, 1), server(2, 2)];
        overlay.hold(key(), &stated, &stated);
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn commands_state_something_about_servers_that_are_held() {
        let (mut overlay, mut in_force) = held();
        let mut command = |change: Change| {
            in_force.apply(&change).expect("it is accepted");
            overlay.heard(&[change]);
        };
        command(Change::EditServer(key(), server(2, 7)));
        command(Change::AddServer(key(), server(1, 5)));
        command(Change::DeleteServer(key(), server(3, 3).key));
        states(&overlay, &in_force, &[server(1, 5), server(2, 7)]);
        in_force.apply(&Change::Flush).expect("a flush");
        overlay.heard(&[Change::Flush]);
        assert_eq!(overlay, Overlay::default());
    }
}
