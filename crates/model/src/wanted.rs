//! What a director is to become, given what a file says and what there is.

use crate::change::Change;
use crate::refusal::Refusal;
use crate::spec::{ServerSpec, ServiceSpec};
use crate::state::{Model, Service};
use crate::supported::supported;

/// A service as it is said in the words of ipvsadm, which has none for segments: there it stays as it is now.
pub fn with_segments_of(now: &Model, said: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { mss: now.service(&said.key).and_then(|service| service.spec.mss), ..said.clone() }
}

/// The model that these changes, in the words of ipvsadm, make of nothing. What they do not speak of (timeouts, tunables, marks, daemons,
/// segments) stays as it is now.
pub fn desired(changes: &[Change], now: &Model) -> Result<Model, (usize, Refusal)> {
    let mut model = Model::default();
    keep_globals(now, &mut model).map_err(|why| (0, why))?;
    for (i, change) in changes.iter().enumerate() {
        let apply = |model: &mut Model| match change {
            Change::AddService(said) => model.apply(&Change::AddService(with_segments_of(now, said))),
            Change::EditService(said) => model.apply(&Change::EditService(with_segments_of(now, said))),
            other => model.apply(other),
        };
        supported(change).and_then(|()| apply(&mut model)).map_err(|why| (i, why))?;
    }
    if !changes.iter().any(|change| matches!(change, Change::AddMark(_))) {
        keep_marks(now, &mut model).map_err(|why| (changes.len(), why))?;
    }
    let speaks_of_daemons = |change: &Change| matches!(change, Change::StartSync(_) | Change::StopSync(_));
    if !changes.iter().any(speaks_of_daemons) {
        for daemon in now.daemons() {
            model.apply(&Change::StartSync(daemon.clone())).map_err(|why| (changes.len(), why))?;
        }
    }
    Ok(model)
}

/// Timeouts and tunables as another model has them.
fn keep_globals(from: &Model, model: &mut Model) -> Result<(), Refusal> {
    model.apply(&Change::SetTimeouts(from.timeouts()))?;
    from.tunables().changed().try_for_each(|(tunable, value)| model.apply(&Change::Tune(tunable, value)))
}

/// Rules of marks as another model has them.
fn keep_marks(from: &Model, model: &mut Model) -> Result<(), Refusal> {
    from.marks().iter().try_for_each(|rule| model.apply(&Change::AddMark(*rule)))
}

/// The same model, but servers that are there already keep the order in which they are, and new ones follow.
pub fn in_place(desired: &Model, now: &Model) -> Result<Model, Refusal> {
    let mut model = Model::default();
    keep_globals(desired, &mut model)?;
    for service in desired.services() {
        let key = service.spec.key;
        model.apply(&Change::AddService(service.spec.clone()))?;
        for server in ordered(service, now.service(&key)) {
            model.apply(&Change::AddServer(key, *server))?;
        }
    }
    keep_marks(desired, &mut model)?;
    let mut daemons = desired.daemons().iter();
    daemons.try_for_each(|daemon| model.apply(&Change::StartSync(daemon.clone())))?;
    Ok(model)
}

fn ordered<'s>(service: &'s Service, now: Option<&Service>) -> Vec<&'s ServerSpec> {
    let is_there = |server: &ServerSpec| now.is_some_and(|now| now.server(&server.key).is_some());
    let (mut there, new): (Vec<&ServerSpec>, Vec<&ServerSpec>) =
        service.servers.iter().partition(|server| is_there(server));
    let place = |server: &ServerSpec| now?.servers.iter().position(|s| s.key == server.key);
    there.sort_by_key(|server| place(server));
    there.extend(new);
    there
}
