//! What leads from one model to another.

use std::collections::HashSet;

use crate::change::Change;
use crate::spec::ServerSpec;
use crate::state::{Model, Service};
use crate::tunables::Tunable;

/// Changes that, applied in order to one model, make another of it.
pub type Plan = Vec<Change>;

/// The shortest list of changes that turns `old` into `new`; empty when they are equal.
///
/// What is the same in both is not touched. Servers keep their place only as long as the servers before them do: a server
/// can only be added as the newest, and the order of servers decides where schedulers send clients, so one director
/// that took a change and another that started with it must agree.
pub fn diff(old: &Model, new: &Model) -> Plan {
    let mut plan = Plan::new();
    stop_daemons(old, new, &mut plan);
    delete_services(old, new, &mut plan);
    for service in new.services() {
        match old.service(&service.spec.key) {
            Some(before) => change_service(before, service, &mut plan),
            None => add_service(service, &mut plan),
        }
    }
    if old.timeouts() != new.timeouts() {
        plan.push(Change::SetTimeouts(new.timeouts()));
    }
    change_tunables(old, new, &mut plan);
    change_marks(old, new, &mut plan);
    start_daemons(old, new, &mut plan);
    plan
}

fn change_tunables(old: &Model, new: &Model, plan: &mut Plan) {
    let differs = |tunable: &Tunable| old.tunables().get(*tunable) != new.tunables().get(*tunable);
    let differing = Tunable::all().filter(differs);
    plan.extend(differing.map(|tunable| Change::Tune(tunable, new.tunables().get(tunable))));
}

/// The order of rules counts: from the first that differs on, all are taken away and made again.
fn change_marks(old: &Model, new: &Model, plan: &mut Plan) {
    let same = old.marks().iter().zip(new.marks()).take_while(|(a, b)| a == b).count();
    plan.extend(old.marks()[same..].iter().rev().map(|rule| Change::DeleteMark(*rule)));
    plan.extend(new.marks()[same..].iter().map(|rule| Change::AddMark(*rule)));
}

/// Newest first, so that nothing has to move up.
fn delete_services(old: &Model, new: &Model, plan: &mut Plan) {
    let gone = old.services().iter().rev().map(|s| s.spec.key).filter(|key| new.service(key).is_none());
    plan.extend(gone.map(Change::DeleteService));
}

fn add_service(service: &Service, plan: &mut Plan) {
    plan.push(Change::AddService(service.spec.clone()));
    add_servers(service, &service.servers, plan);
}

fn add_servers(service: &Service, servers: &[ServerSpec], plan: &mut Plan) {
    plan.extend(servers.iter().map(|server| Change::AddServer(service.spec.key, *server)));
}

fn change_service(old: &Service, new: &Service, plan: &mut Plan) {
    let key = new.spec.key;
    if old.spec != new.spec {
        plan.push(Change::EditService(new.spec.clone()));
    }
    let kept = kept_in_place(&old.servers, &new.servers);
    let (stay, add) = new.servers.split_at(kept.len());
    let staying: HashSet<_> = stay.iter().map(|server| server.key).collect();
    let gone = old.servers.iter().map(|server| server.key).filter(|server| !staying.contains(server));
    plan.extend(gone.map(|server| Change::DeleteServer(key, server)));
    let edited = kept.iter().zip(stay).filter(|(before, after)| before != after);
    plan.extend(edited.map(|(_, after)| Change::EditServer(key, *after)));
    add_servers(new, add, plan);
}

/// The old servers that can stay: as many of the new list's first ones as stand in the old list in the same order.
fn kept_in_place(old: &[ServerSpec], new: &[ServerSpec]) -> Vec<ServerSpec> {
    let mut wanted = new.iter().map(|server| server.key).peekable();
    old.iter().filter(|server| wanted.next_if_eq(&server.key).is_some()).copied().collect()
}

/// First of all: servers of the other family cannot be added while a daemon runs.
fn stop_daemons(old: &Model, new: &Model, plan: &mut Plan) {
    let stop = old.daemons().iter().filter(|daemon| !new.daemons().contains(daemon));
    plan.extend(stop.map(|daemon| Change::StopSync(daemon.role)));
}

/// Last of all, for the same reason.
fn start_daemons(old: &Model, new: &Model, plan: &mut Plan) {
    let start = new.daemons().iter().filter(|daemon| !old.daemons().contains(daemon));
    plan.extend(start.cloned().map(Change::StartSync));
}
