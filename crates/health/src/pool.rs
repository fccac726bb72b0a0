//! Which servers serve a service: quorum, hysteresis and the sorry server, by keepalived's rules.

use xlvs_model::ServerSpec;
use xlvs_model::watch::Pool;

use crate::effective::{Effective, Health, Inputs, Place, Reason, effective};

/// A server as it is configured, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// As configured.
    pub spec: ServerSpec,
    /// All that its weight in force depends on.
    pub inputs: Inputs,
}

/// What is to be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Do the servers serve?
    pub has_quorum: bool,
    /// The service's servers, in the members' order; the sorry server, where it serves, is the last.
    pub servers: Vec<ServerSpec>,
    /// Where each member stands, in their order.
    pub effective: Vec<Effective>,
}

/// Settles a service. `had_quorum`: before this; a service begins with one.
pub fn settle(pool: &Pool, members: &[Member], had_quorum: bool) -> Settled {
    let panics = panics(pool, members);
    let stands =
        |member: &Member| if panics { unbelieved(&member.inputs) } else { effective(&member.inputs) };
    let mut effective: Vec<Effective> = members.iter().map(stands).collect();
    if pool.sorry.is_none() && effective.iter().all(|effective| effective.place.weight() == 0) {
        // Who flaps serves better than nobody.
        effective = members.iter().map(|member| stands(&let_go(member))).collect();
    }
    let has_quorum = has_quorum(pool, members, &effective, had_quorum);
    // A command may have made the sorry server one of the others meanwhile.
    let is_other = |sorry: &ServerSpec| members.iter().all(|member| member.spec.key != sorry.key);
    let sorry = pool.sorry.filter(|sorry| !has_quorum && is_other(sorry));
    if sorry.is_some() {
        let serving = effective.iter_mut().zip(members).filter(|(e, _)| e.place.weight() != 0);
        serving.for_each(|(effective, member)| *effective = stood_down(member));
    }
    let placed = members.iter().zip(&effective).filter_map(|(member, effective)| match effective.place {
        Place::In(weight) => Some(ServerSpec { weight, ..member.spec }),
        Place::Out => None,
    });
    Settled { has_quorum, servers: placed.chain(sorry).collect(), effective }
}

/// The same member if it were not held out.
fn let_go(member: &Member) -> Member {
    Member { inputs: Inputs { is_held: false, ..member.inputs }, ..*member }
}

/// Are so few of the checked servers up that it may be the checks that fail?
fn panics(pool: &Pool, members: &[Member]) -> bool {
    let checked = members.iter().filter(|member| member.inputs.health != Health::Unchecked);
    let (up, down): (Vec<&Member>, Vec<&Member>) =
        checked.partition(|member| member.inputs.health != Health::Down && !member.inputs.is_held);
    !down.is_empty() && up.len() * 100 < pool.panic as usize * (up.len() + down.len())
}

/// Where a server would stand if its checks had not failed.
fn unbelieved(inputs: &Inputs) -> Effective {
    let believed = effective(inputs);
    if !matches!(believed.reason, Reason::CheckFailed | Reason::Flapping) {
        return believed;
    }
    let otherwise = effective(&Inputs { health: Health::Up, is_held: false, ..*inputs });
    let reason = if otherwise.reason == Reason::AsConfigured { Reason::Panic } else { otherwise.reason };
    Effective { reason, ..otherwise }
}

/// keepalived: the remaining servers go when the sorry server comes, those with `inhibit_on_failure` to weight 0.
fn stood_down(member: &Member) -> Effective {
    let place = if member.inputs.policy.inhibit_on_failure { Place::In(0) } else { Place::Out };
    Effective { place, reason: Reason::NoQuorum }
}

/// A quorum that is more than there could be counts as all that there could be, also to gain it.
fn has_quorum(pool: &Pool, members: &[Member], effective: &[Effective], had_quorum: bool) -> bool {
    let sum = |weights: &mut dyn Iterator<Item = u32>| weights.map(u64::from).sum::<u64>();
    let all = sum(&mut members.iter().map(|member| member.inputs.configured));
    let now = sum(&mut effective.iter().map(|effective| effective.place.weight()));
    let (quorum, hysteresis) = (u64::from(pool.quorum).min(all), u64::from(pool.hysteresis));
    if had_quorum {
        now != 0 && now >= quorum.saturating_sub(hysteresis)
    } else {
        now != 0 && now >= (quorum + hysteresis).min(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xlvs_model::spec::Method;
    use xlvs_model::{ServerKey, ServerSpec};

    use super::*;
    use crate::effective::{OperatorWord, Policy};

    fn server(host: u8, weight: u32) -> ServerSpec {
        let key = ServerKey { addr: [10, 0, 0, host].into(), port: 80 };
        ServerSpec { weight, ..ServerSpec::new(key, Method::Masquerade) }
    }

    fn member(host: u8, weight: u32, health: Health) -> Member {
        let inputs = Inputs { configured: weight, health, ..Inputs::default() };
        Member { spec: server(host, weight), inputs }
    }

    fn members(health: &[Health]) -> Vec<Member> {
        (1..).zip(health).map(|(host, health)| member(host, 1, *health)).collect()
    }

    fn sorry() -> Pool {
        Pool { sorry: Some(server(99, 1)), ..Pool::default() }
    }

    const UP: Health = Health::Up;
    const DOWN: Health = Health::Down;

    #[test]
    fn a_failed_server_leaves_the_service_and_comes_back() {
        let pool = Pool::default();
        let settled = settle(&pool, &members(&[UP, DOWN, UP]), true);
        assert_eq!(settled.servers, [server(1, 1), server(3, 1)]);
        assert!(settled.has_quorum);
        assert_eq!(settle(&pool, &members(&[UP, UP, UP]), true).servers.len(), 3);
    }

    #[test]
    fn the_sorry_server_serves_while_all_are_down() {
        let all_down = settle(&sorry(), &members(&[DOWN, DOWN]), true);
        assert_eq!((all_down.has_quorum, &all_down.servers[..]), (false, &[server(99, 1)][..]));
        let one_back = settle(&sorry(), &members(&[DOWN, UP]), false);
        assert_eq!((one_back.has_quorum, &one_back.servers[..]), (true, &[server(2, 1)][..]));
        let none = settle(&Pool::default(), &members(&[DOWN, DOWN]), true);
        assert_eq!((none.has_quorum, none.servers.len()), (false, 0));
    }

    #[test]
    fn a_sorry_server_that_is_one_of_the_others_is_no_sorry_server() {
        let members = [member(99, 1, DOWN), member(1, 1, DOWN)];
        assert_eq!(settle(&sorry(), &members, true).servers, []);
    }

    #[test]
    fn servers_that_are_left_stand_down_for_the_sorry_server() {
        let pool = Pool { quorum: 2, ..sorry() };
        let mut members = members(&[UP, DOWN, DOWN]);
        let settled = settle(&pool, &members, true);
        assert_eq!(settled.servers, [server(99, 1)]);
        assert_eq!(settled.effective[0], Effective { place: Place::Out, reason: Reason::NoQuorum });
        members[0].inputs.policy = Policy { inhibit_on_failure: true, alpha: false };
        assert_eq!(settle(&pool, &members, true).servers, [server(1, 0), server(99, 1)]);
    }

    #[test]
    fn without_a_sorry_server_a_lost_quorum_is_only_told() {
        let pool = Pool { quorum: 2, ..Pool::default() };
        let settled = settle(&pool, &members(&[UP, DOWN]), true);
        assert_eq!((settled.has_quorum, &settled.servers[..]), (false, &[server(1, 1)][..]));
    }

    #[test]
    fn when_too_many_are_down_the_checks_are_not_believed() {
        let pool = Pool { panic: 50, ..Pool::default() };
        let weights = |health: &[Health]| {
            let settled = settle(&pool, &members(health), true);
            settled.effective.iter().map(|e| (e.place.weight(), e.reason)).collect::<Vec<_>>()
        };
        let (as_configured, failed) = ((1, Reason::AsConfigured), (0, Reason::CheckFailed));
        assert_eq!(weights(&[UP, UP, DOWN, DOWN]), [as_configured, as_configured, failed, failed]);
        assert_eq!(weights(&[UP, DOWN, DOWN]), [as_configured, (1, Reason::Panic), (1, Reason::Panic)]);
        assert_eq!(weights(&[DOWN, Health::Unchecked]), [(1, Reason::Panic), as_configured]);
        let mut drained = members(&[DOWN, DOWN]);
        drained[0].inputs.operator = OperatorWord::Drained;
        let settled = settle(&pool, &drained, true);
        assert_eq!(settled.effective[0], Effective { place: Place::In(0), reason: Reason::Drained });
        assert_eq!(settle(&Pool::default(), &members(&[DOWN, DOWN]), true).servers, []);
    }

    #[test]
    fn who_is_held_out_serves_where_nobody_else_would() {
        let held = |host| {
            let member = member(host, 1, UP);
            Member { inputs: Inputs { is_held: true, ..member.inputs }, ..member }
        };
        let reasons = |settled: &Settled| settled.effective.iter().map(|e| e.reason).collect::<Vec<_>>();
        let one_of_two = settle(&Pool::default(), &[held(1), member(2, 1, UP)], true);
        assert_eq!(one_of_two.servers, [server(2, 1)]);
        assert_eq!(reasons(&one_of_two), [Reason::Flapping, Reason::AsConfigured]);
        let no_other = settle(&Pool::default(), &[held(1), member(2, 1, DOWN)], true);
        assert_eq!(no_other.servers, [server(1, 1)]);
        assert_eq!(reasons(&no_other), [Reason::AsConfigured, Reason::CheckFailed]);
        let with_sorry = settle(&sorry(), &[held(1), member(2, 1, DOWN)], true);
        assert_eq!(with_sorry.servers, [server(99, 1)]);
        let panicking =
            settle(&Pool { panic: 50, ..Pool::default() }, &[held(1), held(2), member(3, 1, UP)], true);
        assert_eq!(reasons(&panicking), [Reason::Panic, Reason::Panic, Reason::AsConfigured]);
    }

    #[test]
    fn hysteresis_keeps_the_quorum_and_keeps_it_away() {
        let pool = Pool { quorum: 3, hysteresis: 1, ..sorry() };
        let up = |count: usize| {
            let mut health = [DOWN; 5];
            health[..count].fill(UP);
            members(&health)
        };
        assert!(settle(&pool, &up(2), true).has_quorum);
        assert!(!settle(&pool, &up(1), true).has_quorum);
        assert!(!settle(&pool, &up(3), false).has_quorum);
        assert!(settle(&pool, &up(4), false).has_quorum);
    }

    #[test]
    fn a_quorum_beyond_all_weights_is_all_weights() {
        let pool = Pool { quorum: 100, hysteresis: 5, ..sorry() };
        assert!(settle(&pool, &members(&[UP, UP]), true).has_quorum);
        assert!(settle(&pool, &members(&[UP, UP]), false).has_quorum);
    }

    #[test]
    fn an_operator_who_drains_all_servers_calls_the_sorry_server() {
        let mut members = members(&[UP]);
        members[0].inputs.operator = OperatorWord::Drained;
        let settled = settle(&sorry(), &members, true);
        assert_eq!(settled.servers, [server(1, 0), server(99, 1)]);
    }

    proptest! {
        #[test]
        fn somebody_serves_whenever_somebody_can(
            states in proptest::collection::vec((0..3_u32, any::<bool>()), 0..6),
            quorum in 1..5_u32,
            hysteresis in 0..5_u32,
            had_quorum: bool,
        ) {
            let pool = Pool { quorum, hysteresis: hysteresis % quorum, ..sorry() };
            let members: Vec<Member> = (1..)
                .zip(&states)
                .map(|(host, (weight, up))| member(host, *weight, if *up { UP } else { DOWN }))
                .collect();
            let settled = settle(&pool, &members, had_quorum);
            let serving = settled.servers.iter().filter(|server| server.weight != 0).count();
            prop_assert!(serving > 0);
            let by_sorry = settled.servers.last().is_some_and(|last| last.key == server(99, 1).key);
            prop_assert_eq!(by_sorry, !settled.has_quorum);
            // What was settled stays so while nothing else changes.
            prop_assert_eq!(settle(&pool, &members, settled.has_quorum).has_quorum, settled.has_quorum);
        }
    }
}
