//! What the data plane does not do yet, in one place.

use crate::change::Change;
use crate::refusal::Refusal;
use crate::spec::ServiceSpec;

/// Refuses, with one sentence, a change that the model knows but the data plane cannot carry out yet.
///
/// Ask before [`crate::Model::apply`], and only for changes that are to reach a data plane.
pub fn supported(change: &Change) -> Result<(), Refusal> {
    match change {
        Change::AddService(spec) | Change::EditService(spec) => service(spec),
        Change::StartSync(_) => refuse("xlvs does not synchronise connections with another director yet."),
        Change::AddServer(..)
        | Change::EditServer(..)
        | Change::DeleteService(_)
        | Change::Flush
        | Change::DeleteServer(..)
        | Change::SetTimeouts(_)
        | Change::Tune(..)
        | Change::AddMark(_)
        | Change::DeleteMark(_)
        | Change::Zero(_)
        | Change::StopSync(_) => Ok(()),
    }
}

fn service(spec: &ServiceSpec) -> Result<(), Refusal> {
    if spec.engine.is_some() {
        return refuse("xlvs has no persistence engines yet.");
    }
    Ok(())
}

fn refuse(sentence: &str) -> Result<(), Refusal> {
    Err(Refusal::Unsupported(sentence.to_owned()))
}
