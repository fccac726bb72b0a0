//! The services and servers as they stand, and what a change makes of them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::change::{Change, SyncDaemon, SyncRole};
use crate::check;
use crate::marks::{self, MarkRule};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::spec::{ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts};
use crate::tally::Tally;
use crate::tunables::Tunables;

/// A service with its servers, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As specified.
    pub spec: ServiceSpec,
    /// Oldest first: the kernel's list, reversed.
    pub servers: Vec<ServerSpec>,
}

impl Service {
    /// The server of this identity.
    pub fn server(&self, key: &ServerKey) -> Option<&ServerSpec> {
        self.servers.iter().find(|s| s.key == *key)
    }

    fn has_mixed_families(&self) -> bool {
        let family = self.spec.key.family();
        self.servers.iter().any(|s| s.key.family() != family)
    }
}

/// All that an operator has said and not taken back.
///
/// Two models are equal when a director cannot tell them apart: the order of the servers of a service counts, as
/// schedulers walk it; the order in which services were added does not.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(into = "Stored")]
pub struct Model {
    services: Services,
    timeouts: Timeouts,
    tunables: Tunables,
    marks: Vec<MarkRule>,
    daemons: Vec<SyncDaemon>,
}

impl Model {
    /// All services, oldest first.
    pub fn services(&self) -> &[Service] {
        self.services.as_slice()
    }

    /// The service of this identity.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// What there is of services, all taken together.
    pub fn tally(&self) -> &Tally {
        self.services.tally()
    }

    /// The timeouts that `--set` changes.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// LVS's tunables.
    pub fn tunables(&self) -> &Tunables {
        &self.tunables
    }

    /// The rules of marks, in their order.
    pub fn marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// The synchronisation daemons, master first, with every default filled in.
    pub fn daemons(&self) -> &[SyncDaemon] {
        &self.daemons
    }

    /// Applies one change as the kernel would, or refuses it and changes nothing.
    pub fn apply(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::AddService(spec) => self.add_service(spec),
            Change::EditService(spec) => self.edit_service(spec),
            Change::DeleteService(key) => self.delete_service(key),
            Change::Flush => {
                self.services.clear();
                Ok(())
            }
            Change::AddServer(key, spec) => self.add_server(key, spec),
            Change::EditServer(key, spec) => self.edit_server(key, spec),
            Change::DeleteServer(key, server) => self.delete_server(key, server),
            Change::SetTimeouts(timeouts) => self.set_timeouts(timeouts),
            Change::Tune(tunable, value) => {
                self.tunables.set(*tunable, *value).map_err(|why| Refusal::Unsupported(why.to_string()))
            }
            Change::AddMark(rule) => self.add_mark(rule),
            Change::DeleteMark(rule) => self.delete_mark(rule),
            Change::Zero(None) => Ok(()),
            Change::Zero(Some(key)) => self.service(key).map(|_| ()).ok_or(Refusal::NoService),
            Change::StartSync(daemon) => self.start_sync(daemon),
            Change::StopSync(role) => self.stop_sync(*role),
        }
    }

    fn add_service(&mut self, spec: &ServiceSpec) -> Result<(), Refusal> {
        if self.services.contains(&spec.key) {
            return Err(Refusal::Exists);
        }
        check::service(spec)?;
        self.services.push(Service { spec: settled(spec), servers: Vec::new() });
        Ok(())
    }

    fn edit_service(&mut self, spec: &ServiceSpec) -> Result<(), Refusal> {
        if !self.services.contains(&spec.key) {
            return Err(Refusal::NoService);
        }
        check::service(spec)?;
        self.services.respecify(settled(spec));
        Ok(())
    }

    fn delete_service(&mut self, key: &ServiceKey) -> Result<(), Refusal> {
        self.services.remove(key).map(|_| ()).ok_or(Refusal::NoService)
    }

    fn add_server(&mut self, key: &ServiceKey, spec: &ServerSpec) -> Result<(), Refusal> {
        let syncing = !self.daemons.is_empty();
        let service = self.services.get_mut(key).ok_or(Refusal::NoService)?;
        check::families(key.family(), spec, syncing)?;
        check::server(spec)?;
        if service.server(&spec.key).is_some() {
            return Err(Refusal::Exists);
        }
        check::server_address(spec.key.addr)?;
        service.servers.push(*spec);
        Ok(())
    }

    fn edit_server(&mut self, key: &ServiceKey, spec: &ServerSpec) -> Result<(), Refusal> {
        let syncing = !self.daemons.is_empty();
        let service = self.services.get_mut(key).ok_or(Refusal::NoService)?;
        check::families(key.family(), spec, syncing)?;
        check::server(spec)?;
        let server = service.servers.iter_mut().find(|s| s.key == spec.key).ok_or(Refusal::NotFound)?;
        *server = *spec;
        Ok(())
    }

    fn delete_server(&mut self, key: &ServiceKey, server: &ServerKey) -> Result<(), Refusal> {
        let service = self.services.get_mut(key).ok_or(Refusal::NoService)?;
        let at = service.servers.iter().position(|s| s.key == *server).ok_or(Refusal::NotFound)?;
        service.servers.remove(at);
        Ok(())
    }

    fn set_timeouts(&mut self, new: &Timeouts) -> Result<(), Refusal> {
        check::timeouts(new)?;
        let keep_if_zero = |new, old| if new == 0 { old } else { new };
        self.timeouts = Timeouts {
            tcp: keep_if_zero(new.tcp, self.timeouts.tcp),
            tcp_fin: keep_if_zero(new.tcp_fin, self.timeouts.tcp_fin),
            udp: keep_if_zero(new.udp, self.timeouts.udp),
        };
        Ok(())
    }

    fn add_mark(&mut self, rule: &MarkRule) -> Result<(), Refusal> {
        rule.check()?;
        if self.marks.contains(rule) {
            return Err(Refusal::Exists);
        }
        if self.marks.len() == marks::MOST {
            return Err(Refusal::NoRoom(format!("there are {} rules of marks already", marks::MOST)));
        }
        self.marks.push(*rule);
        Ok(())
    }

    fn delete_mark(&mut self, rule: &MarkRule) -> Result<(), Refusal> {
        let at = self.marks.iter().position(|known| known == rule);
        let at = at.ok_or_else(|| Refusal::Unsupported("there is no such rule of marks".to_owned()))?;
        self.marks.remove(at);
        Ok(())
    }

    fn start_sync(&mut self, daemon: &SyncDaemon) -> Result<(), Refusal> {
        // The synchronisation protocol carries one family per connection, so the kernel keeps the two apart.
        if self.services().iter().any(Service::has_mixed_families) {
            return Err(Refusal::Invalid);
        }
        if self.daemons.iter().any(|d| d.role == daemon.role) {
            return Err(Refusal::Exists);
        }
        self.daemons.push(daemon.with_defaults());
        self.daemons.sort_by_key(|d| d.role);
        Ok(())
    }

    fn stop_sync(&mut self, role: SyncRole) -> Result<(), Refusal> {
        let at = self.daemons.iter().position(|d| d.role == role).ok_or(Refusal::NoService)?;
        self.daemons.remove(at);
        Ok(())
    }
}

impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        self.timeouts == other.timeouts
            && self.tunables == other.tunables
            && self.marks == other.marks
            && self.daemons == other.daemons
            && self.services().len() == other.services().len()
            && self.services().iter().all(|s| other.service(&s.spec.key) == Some(s))
    }
}

impl Eq for Model {}

/// One mask, said twice in a specification: the persistent one is what the scheduler uses.
fn settled(spec: &ServiceSpec) -> ServiceSpec {
    let netmask = spec.persistence.map_or(spec.netmask, |p| p.netmask);
    ServiceSpec { netmask, ..spec.clone() }
}

/// A model as it lies in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    services: Vec<Service>,
    #[serde(default)]
    timeouts: Timeouts,
    #[serde(default)]
    tunables: Tunables,
    #[serde(default)]
    marks: Vec<MarkRule>,
    #[serde(default)]
    daemons: Vec<SyncDaemon>,
}

impl From<Model> for Stored {
    fn from(model: Model) -> Self {
        Self {
            services: model.services().to_vec(),
            timeouts: model.timeouts,
            tunables: model.tunables,
            marks: model.marks,
            daemons: model.daemons,
        }
    }
}

impl Stored {
    /// The model again, by the road that every change takes: a file cannot hold what a command could not have said.
    fn restore(self) -> Result<Model, (Change, Refusal)> {
        let mut model = Model::default();
        let mut apply = |change: Change| model.apply(&change).map_err(|refusal| (change, refusal));
        for service in self.services {
            let key = service.spec.key;
            apply(Change::AddService(service.spec))?;
            for server in service.servers {
                apply(Change::AddServer(key, server))?;
            }
        }
        apply(Change::SetTimeouts(self.timeouts))?;
        for (tunable, value) in self.tunables.changed() {
            apply(Change::Tune(tunable, value))?;
        }
        for rule in self.marks {
            apply(Change::AddMark(rule))?;
        }
        for daemon in self.daemons {
            apply(Change::StartSync(daemon))?;
        }
        Ok(model)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer)?
            .restore()
            .map_err(|(change, refusal)| serde::de::Error::custom(format!("{refusal}: {change:?}")))
    }
}
