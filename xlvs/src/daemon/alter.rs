//! One service or server as it is to be: what a file would say of it, put into what is stated.

use anyhow::{Context, bail};
use xlvs_model::watch::Watch;
use xlvs_model::{Change, Config, ServerKey, ServiceKey};

use crate::plan;
use crate::protocol::Alteration;

/// What is stated, altered so; or why it cannot be. What is not spoken of stays.
pub fn altered(mut stated: Config, what: &Alteration) -> anyhow::Result<Config> {
    match what {
        Alteration::Service { file, with_servers } => service(&mut stated, &read(file)?, *with_servers)?,
        Alteration::Server { file } => server(&mut stated, &read(file)?)?,
        Alteration::NoService(key) => {
            stated.model.apply(&Change::DeleteService(*key)).with_context(|| plan::service(key))?;
        }
        Alteration::NoServer(key, server) => {
            let name = || format!("{} of {}", plan::server(server), plan::service(key));
            stated.model.apply(&Change::DeleteServer(*key, *server)).with_context(name)?;
        }
        Alteration::Nothing => stated.model.apply(&Change::Flush)?,
    }
    Ok(stated.pruned())
}

fn read(file: &str) -> anyhow::Result<Config> {
    Config::read(file).map_err(|mistakes| anyhow::anyhow!("{}", mistakes.in_file("the words")))
}

/// The only service of a file.
fn only(said: &Config) -> anyhow::Result<&xlvs_model::state::Service> {
    match said.model.services() {
        [service] => Ok(service),
        services => bail!("one service is altered at a time, not {}", services.len()),
    }
}

fn service(stated: &mut Config, said: &Config, with_servers: bool) -> anyhow::Result<()> {
    let wanted = only(said)?;
    let key = wanted.spec.key;
    let change = match stated.model.service(&key) {
        Some(_) => Change::EditService(wanted.spec.clone()),
        None => Change::AddService(wanted.spec.clone()),
    };
    stated.model.apply(&change)?;
    let mut pool = said.pools.get(&key).cloned().unwrap_or_default();
    if with_servers {
        let present: Vec<ServerKey> = servers(stated, &key);
        for server in present.iter().filter(|server| wanted.server(server).is_none()) {
            stated.model.apply(&Change::DeleteServer(key, *server))?;
        }
        wanted.servers.iter().try_for_each(|spec| put(stated, key, *spec))?;
    } else {
        pool.servers = stated.pools.remove(&key).map(|pool| pool.servers).unwrap_or_default();
    }
    stated.pools.insert(key, pool);
    Ok(())
}

fn server(stated: &mut Config, said: &Config) -> anyhow::Result<()> {
    let wanted = only(said)?;
    let key = wanted.spec.key;
    let [spec] = wanted.servers[..] else {
        bail!("one server is altered at a time, not {}", wanted.servers.len())
    };
    stated.model.service(&key).with_context(|| format!("there is no service {}", plan::service(&key)))?;
    put(stated, key, spec)?;
    let watch =
        said.pools.get(&key).and_then(|pool| pool.servers.get(&spec.key)).cloned().unwrap_or_default();
    let pool = stated.pools.entry(key).or_default();
    if watch == Watch::default() {
        pool.servers.remove(&spec.key);
    } else {
        pool.servers.insert(spec.key, watch);
    }
    Ok(())
}

/// A server that is there keeps its place.
fn put(stated: &mut Config, service: ServiceKey, spec: xlvs_model::ServerSpec) -> anyhow::Result<()> {
    let is_there = stated.model.service(&service).is_some_and(|known| known.server(&spec.key).is_some());
    let change = if is_there { Change::EditServer(service, spec) } else { Change::AddServer(service, spec) };
    stated.model.apply(&change).with_context(|| plan::server(&spec.key))
}

fn servers(stated: &Config, service: &ServiceKey) -> Vec<ServerKey> {
    stated.model.service(service).into_iter().flat_map(|known| &known.servers).map(|spec| spec.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "[[service]]\ntcp = \"192.0.2.1:80\"\nscheduler = \"rr\"\nquorum = 2\ncheck = \"tcp\"\nmethod = \"nat\"\n\
                       servers = [\"10.0.0.1\", \"10.0.0.2\"]\n";
    const NAMES: &str = "[[service]]\nudp = \"192.0.2.1:53\"\nservers = [\"10.0.0.1\"]\n";

    fn config(text: &str) -> Config {
        Config::read(text).expect("no mistake")
    }

    fn key(text: &str) -> ServiceKey {
        config(text).model.services()[0].spec.key
    }

    #[track_caller]
    fn becomes(what: &Alteration, text: &str) {
        let stated = config(&format!("{WEB}{NAMES}"));
        let altered = altered(stated, what).expect("it can be");
        assert_eq!(altered.to_toml(), config(text).to_toml());
    }

    #[test]
    fn a_service_is_put_with_its_servers_or_without_touching_them() {
        let file = "[[service]]\ntcp = \"192.0.2.1:80\"\nservers = [\"10.0.0.3\", { address = \"10.0.0.2\", weight = 5 }]\n";
        let placed = "[[service]]\ntcp = \"192.0.2.1:80\"\nservers = [{ address = \"10.0.0.2\", weight = 5 }, \"10.0.0.3\"]\n";
        let what = Alteration::Service { file: file.to_owned(), with_servers: true };
        becomes(&what, &format!("{placed}{NAMES}"));
        let file = "[[service]]\ntcp = \"192.0.2.1:80\"\nscheduler = \"wrr\"\n".to_owned();
        let kept = WEB.replace("\"rr\"", "\"wrr\"").replace("quorum = 2\n", "");
        becomes(&Alteration::Service { file, with_servers: false }, &format!("{kept}{NAMES}"));
        let file = "[[service]]\nmark = 7\n".to_owned();
        let all = format!("{WEB}{NAMES}{file}");
        becomes(&Alteration::Service { file, with_servers: true }, &all);
    }

    #[test]
    fn a_server_is_put_with_how_it_is_looked_after() {
        let at = |words: &str| Alteration::Server {
            file: format!(
                "[[service]]\ntcp = \"192.0.2.1:80\"\nservers = [{{ address = \"10.0.0.2\", {words} }}]\n"
            ),
        };
        let all = |second: &str| format!("{}{NAMES}", WEB.replace("\"10.0.0.2\"", second));
        becomes(
            &at("method = \"nat\", weight = 4"),
            &all("{ address = \"10.0.0.2\", weight = 4, check = \"none\" }"),
        );
        becomes(
            &at("method = \"nat\", check = \"http\""),
            &all("{ address = \"10.0.0.2\", check = \"http\" }"),
        );
    }

    #[test]
    fn what_is_taken_away_leaves_the_rest() {
        let (web, second) = (key(WEB), ServerKey { addr: [10, 0, 0, 2].into(), port: 80 });
        becomes(&Alteration::NoService(web), NAMES);
        becomes(&Alteration::NoServer(web, second), &format!("{}{NAMES}", WEB.replace(", \"10.0.0.2\"", "")));
        becomes(&Alteration::Nothing, "");
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        let said = |what: Alteration| format!("{:#}", altered(config(WEB), &what).expect_err("it cannot be"));
        assert_eq!(said(Alteration::NoService(key(NAMES))), "UDP 192.0.2.1:53: no such service");
        let file = NAMES.to_owned();
        assert_eq!(said(Alteration::Server { file }), "there is no service UDP 192.0.2.1:53");
        let file = "[[service]]\ntcp = \"x\"\n".to_owned();
        assert!(said(Alteration::Service { file, with_servers: true }).starts_with("the words:2:7: "));
    }
}
