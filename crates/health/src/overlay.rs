//! What is in force, against what is stated.
//!
//! Checks, agents and operators take servers away, put others in their place, and change weights. What files and commands
//! stated must come back when the reason is gone, so it is remembered for every service that is not in force as stated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xlvs_model::state::Service;
use xlvs_model::{Change, Model, ServerSpec, ServiceKey};

/// The stated servers, in their order, of services that are not in force so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(ServiceKey, Vec<ServerSpec>)>", into = "Vec<(ServiceKey, Vec<ServerSpec>)>")]
pub struct Overlay(BTreeMap<ServiceKey, Vec<ServerSpec>>);

impl From<Vec<(ServiceKey, Vec<ServerSpec>)>> for Overlay {
    fn from(list: Vec<(ServiceKey, Vec<ServerSpec>)>) -> Self {
        Self(list.into_iter().collect())
    }
}

impl From<Overlay> for Vec<(ServiceKey, Vec<ServerSpec>)> {
    fn from(overlay: Overlay) -> Self {
        overlay.0.into_iter().collect()
    }
}

impl Overlay {
    /// What is stated, of what is in force.
    pub fn stated(&self, in_force: &Model) -> Model {
        let mut model = in_force.clone();
        for (key, stated) in &self.0 {
            let Some(service) = in_force.service(key) else { continue };
            let away = service.servers.iter().map(|spec| Change::DeleteServer(*key, spec.key));
            let back = stated.iter().map(|spec| Change::AddServer(*key, *spec));
            // What was stated once can be stated again.
            away.chain(back).for_each(|change| _ = model.apply(&change));
        }
        model
    }

    /// The stated servers of one service, of those in force.
    pub fn stated_servers<'s>(&'s self, in_force: &'s Service) -> &'s [ServerSpec] {
        self.0.get(&in_force.spec.key).unwrap_or(&in_force.servers)
    }

    /// A service is to be in force otherwise than stated, or on its way back. Holding what is in force as stated does no harm.
    pub fn hold(&mut self, key: ServiceKey, stated: &[ServerSpec]) {
        self.0.insert(key, stated.to_vec());
    }

    /// What is in force as stated need not be held any more.
    pub fn release(&mut self, in_force: &Service) {
        let key = in_force.spec.key;
        if self.0.get(&key).is_some_and(|stated| *stated == in_force.servers) {
            self.0.remove(&key);
        }
    }

    /// Commands changed what is in force, and by that stated something. What they did not speak of stays held. Returns whether
    /// they spoke of anything that is.
    pub fn heard(&mut self, changes: &[Change]) -> bool {
        changes.iter().filter(|change| self.heard_one(change)).count() != 0
    }

    fn heard_one(&mut self, change: &Change) -> bool {
        match change {
            Change::AddServer(key, spec) | Change::EditServer(key, spec) => {
                let Some(stated) = self.0.get_mut(key) else { return false };
                match stated.iter_mut().find(|known| known.key == spec.key) {
                    Some(known) => *known = *spec,
                    // A sorry server, which nobody stated, can only be edited.
                    None if matches!(change, Change::AddServer(..)) => stated.push(*spec),
                    None => {}
                }
                true
            }
            Change::DeleteServer(key, server) => {
                let Some(stated) = self.0.get_mut(key) else { return false };
                stated.retain(|spec| spec.key != *server);
                true
            }
            Change::DeleteService(key) => self.0.remove(key).is_some(),
            Change::Flush => !std::mem::take(&mut self.0).is_empty(),
            _ => false,
        }
    }

    /// Services of which anything is held.
    pub fn services(&self) -> impl Iterator<Item = ServiceKey> {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use xlvs_model::spec::{Method, Protocol, Scheduler};
    use xlvs_model::{ServerKey, ServiceSpec};

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
        let mut overlay = Overlay::default();
        overlay.hold(key(), &[server(1, 1), server(2, 2), server(3, 3)]);
        (overlay, model(&[server(2, 0), server(3, 3), server(99, 1)]))
    }

    #[track_caller]
    fn states(overlay: &Overlay, in_force: &Model, servers: &[ServerSpec]) {
        let stated = overlay.stated(in_force);
        let [service] = stated.services() else { panic!("one service") };
        assert_eq!(service.servers, servers);
        assert_eq!(overlay.stated_servers(&in_force.services()[0]), servers);
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
        overlay.hold(key(), &stated);
        let turned = model(&[server(2, 2), server(1, 1)]);
        overlay.release(&turned.services()[0]);
        states(&overlay, &turned, &stated);
        overlay.release(&model(&stated).services()[0]);
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
        command(Change::AddServer(key(), server(4, 4)));
        command(Change::EditServer(key(), server(99, 9)));
        states(&overlay, &in_force, &[server(1, 5), server(2, 7), server(4, 4)]);
        in_force.apply(&Change::Flush).expect("a flush");
        overlay.heard(&[Change::Flush]);
        assert_eq!(overlay, Overlay::default());
    }
}
