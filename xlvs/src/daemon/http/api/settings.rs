//! Timeouts, tunables, and which packets carry which mark.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use xlvs_model::check::MAX_TIMEOUT;
use xlvs_model::marks::Parts;
use xlvs_model::spec::Protocol;
use xlvs_model::tunables::TunableError;
use xlvs_model::{Change, Family, MarkRule, Tunable, Tunables};

use super::super::problem::Problem;
use super::take::{Asked, Named, Said};
use super::{App, Refusals};

/// The timeouts that `ipvsadm --set` changes, in seconds.
#[derive(Serialize, ToSchema)]
pub struct Timeouts {
    /// TCP, established.
    tcp: u32,
    /// TCP after the first FIN.
    tcp_fin: u32,
    /// UDP.
    udp: u32,
}

/// The timeouts.
#[utoipa::path(get, path = "/api/v1/timeouts", tag = "settings", responses((status = OK, body = Timeouts), Refusals))]
pub async fn timeouts(State(app): State<App>) -> Result<Json<Timeouts>, Problem> {
    let xlvs_model::Timeouts { tcp, tcp_fin, udp } = app.model().await?.timeouts();
    Ok(Json(Timeouts { tcp, tcp_fin, udp }))
}

/// Timeouts to be set, in seconds; what is not said stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTimeouts {
    /// TCP, established.
    #[schema(minimum = 1, maximum = 8_589_934)]
    tcp: Option<u32>,
    /// TCP after the first FIN.
    #[schema(minimum = 1, maximum = 8_589_934)]
    tcp_fin: Option<u32>,
    /// UDP.
    #[schema(minimum = 1, maximum = 8_589_934)]
    udp: Option<u32>,
}

/// Sets timeouts.
#[utoipa::path(put, path = "/api/v1/timeouts", tag = "settings", request_body = NewTimeouts, responses((status = NO_CONTENT), Refusals))]
pub async fn set_timeouts(
    State(app): State<App>,
    Said(NewTimeouts { tcp, tcp_fin, udp }): Said<NewTimeouts>,
) -> Result<StatusCode, Problem> {
    let said = [tcp, tcp_fin, udp];
    if let Some(wrong) = said.into_iter().flatten().find(|seconds| !(1..=MAX_TIMEOUT).contains(seconds)) {
        return Err(Problem::refused(format!("a timeout is 1 to {MAX_TIMEOUT} seconds, not {wrong}")));
    }
    let [tcp, tcp_fin, udp] = said.map(Option::unwrap_or_default);
    app.apply(vec![Change::SetTimeouts(xlvs_model::Timeouts { tcp, tcp_fin, udp })]).await
}

/// One of LVS's tunables, the kernel's `net.ipv4.vs.*`.
#[derive(Serialize, ToSchema)]
pub struct Tuned {
    /// The kernel's name.
    name: String,
    /// The value in force.
    value: u32,
    /// LVS's default.
    default: u32,
    /// What it does.
    meaning: String,
    /// Why it cannot be set, where it cannot.
    fixed: Option<String>,
}

impl Tuned {
    fn of(tunables: &Tunables, tunable: Tunable) -> Self {
        Self {
            name: tunable.name().to_owned(),
            value: tunables.get(tunable),
            default: tunable.default_value(),
            meaning: tunable.meaning().to_owned(),
            fixed: tunable.fixed().map(str::to_owned),
        }
    }
}

/// The tunables.
#[utoipa::path(get, path = "/api/v1/tunables", tag = "settings", responses((status = OK, body = Vec<Tuned>), Refusals))]
pub async fn tunables(State(app): State<App>) -> Result<Json<Vec<Tuned>>, Problem> {
    let model = app.model().await?;
    Ok(Json(Tunable::all().map(|tunable| Tuned::of(model.tunables(), tunable)).collect()))
}

/// A tunable's value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    value: u32,
}

/// Sets a tunable.
#[utoipa::path(put, path = "/api/v1/tunables/{name}", tag = "settings", request_body = Setting, params(
    ("name" = String, Path, description = "The kernel's name, such as `drop_entry`"),
), responses((status = NO_CONTENT), Refusals))]
pub async fn tune(
    State(app): State<App>,
    Named(name): Named<String>,
    Said(Setting { value }): Said<Setting>,
) -> Result<StatusCode, Problem> {
    let tunable: Tunable = name.parse().map_err(|why: TunableError| match why {
        TunableError::Unknown(..) => Problem::absent(why.to_string()),
        _ => Problem::refused(why.to_string()),
    })?;
    tunable.check(value).map_err(|why| Problem::refused(why.to_string()))?;
    app.apply(vec![Change::Tune(tunable, value)]).await
}

/// A rule: packets to these addresses and ports carry this mark.
#[derive(Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Mark {
    /// The mark.
    #[schema(minimum = 1)]
    #[param(minimum = 1)]
    mark: u32,
    /// Destination: an address or a prefix; any unless said.
    #[schema(example = "192.0.2.0/24")]
    to: Option<String>,
    /// Destination port or ports; any unless said.
    #[schema(example = "5000-5999")]
    port: Option<String>,
    /// `tcp`, `udp` or `sctp`; all unless said.
    protocol: Option<String>,
    /// IPv6, of a rule without `to`.
    #[serde(default)]
    #[schema(default = false)]
    ipv6: bool,
}

impl From<&MarkRule> for Mark {
    fn from(rule: &MarkRule) -> Self {
        let port = match rule.ports {
            (0, u16::MAX) => None,
            (first, last) if first == last => Some(first.to_string()),
            (first, last) => Some(format!("{first}-{last}")),
        };
        Self {
            mark: rule.mark,
            to: rule.to.map(|(addr, prefix)| format!("{addr}/{prefix}")),
            port,
            protocol: rule
                .protocol
                .and_then(Protocol::from_u8)
                .map(|protocol| protocol.listed().to_lowercase()),
            ipv6: rule.family == Family::Inet6,
        }
    }
}

impl Mark {
    fn rule(&self) -> Result<MarkRule, Problem> {
        let Self { mark, to, port, protocol, ipv6 } = self;
        let parts =
            Parts { to: to.as_deref(), ports: port.as_deref(), protocol: protocol.as_deref(), ipv6: *ipv6 };
        parts.rule(*mark).map_err(|why| Problem::refused(why.to_string()))
    }
}

/// The rules of marks; of several that fit a packet the last counts.
#[utoipa::path(get, path = "/api/v1/marks", tag = "settings", responses((status = OK, body = Vec<Mark>), Refusals))]
pub async fn marks(State(app): State<App>) -> Result<Json<Vec<Mark>>, Problem> {
    Ok(Json(app.model().await?.marks().iter().map(Mark::from).collect()))
}

/// Adds a rule.
#[utoipa::path(post, path = "/api/v1/marks", tag = "settings", request_body = Mark, responses((status = NO_CONTENT), Refusals))]
pub async fn add_mark(State(app): State<App>, Said(mark): Said<Mark>) -> Result<StatusCode, Problem> {
    app.apply(vec![Change::AddMark(mark.rule()?)]).await
}

/// Deletes a rule, said as it was added.
#[utoipa::path(delete, path = "/api/v1/marks", tag = "settings", params(Mark), responses((status = NO_CONTENT), Refusals))]
pub async fn delete_mark(State(app): State<App>, Asked(mark): Asked<Mark>) -> Result<StatusCode, Problem> {
    app.apply(vec![Change::DeleteMark(mark.rule()?)]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_shown_is_the_rule_that_it_shows() {
        for text in
            ["7 --to 192.0.2.0/24 --port 80-89 --protocol tcp", "1 --ipv6", "2", "3 --port 53 --protocol udp"]
        {
            let rule: MarkRule = text.parse().expect("a rule");
            assert_eq!(Mark::from(&rule).rule().expect("the same"), rule, "{text}");
        }
    }
}
