//! In what two configurations differ, in words.

use xlvs_model::watch::{Pool, Watch};
use xlvs_model::{Config, ServiceKey, diff};

use crate::plan;

/// What leads from one to the other, a sentence a change.
pub fn sentences(now: &Config, wanted: &Config) -> Vec<String> {
    let mut sentences = plan::sentences(&diff(&now.model, &wanted.model), &now.model);
    interfaces(now, wanted, &mut sentences);
    if now.hook != wanted.hook {
        sentences
            .push("note another hook; the director is attached there at the daemon's next start".to_owned());
    }
    if now.sizes != wanted.sizes {
        sentences.push(
            "note other sizes of the tables; they are made at the next start after `xlvs unload`".to_owned(),
        );
    }
    if now.http != wanted.http {
        sentences.push("note other settings of HTTP; they count from the daemon's next start".to_owned());
    }
    pools(now, wanted, &mut sentences);
    sentences
}

fn interfaces(now: &Config, wanted: &Config, sentences: &mut Vec<String>) {
    let missing = |from: &Config, name: &String| !from.interfaces.contains(name);
    let added = wanted.interfaces.iter().filter(|name| missing(now, name));
    sentences.extend(added.map(|name| format!("attach to {name}")));
    let gone = now.interfaces.iter().filter(|name| missing(wanted, name));
    sentences.extend(gone.map(|name| format!("let go of {name}")));
}

fn pools(now: &Config, wanted: &Config, sentences: &mut Vec<String>) {
    let nothing = Pool::default();
    // Of a service that goes, nothing more need be said.
    for service in wanted.model.services() {
        let key = service.spec.key;
        let of = |config: &Config| config.pools.get(&key).cloned().unwrap_or_default();
        if now.pools.get(&key).unwrap_or(&nothing) != wanted.pools.get(&key).unwrap_or(&nothing) {
            pool(&key, &of(now), &of(wanted), sentences);
        }
    }
}

fn pool(key: &ServiceKey, now: &Pool, wanted: &Pool, sentences: &mut Vec<String>) {
    let service = plan::service(key);
    let (before, after) = (now.words(), wanted.words());
    if before != after {
        sentences.push(format!("change what holds for {service}: {before} -> {after}"));
    }
    let nothing = Watch::default();
    for (server, after) in &wanted.servers {
        let before = now.servers.get(server).unwrap_or(&nothing);
        let name = plan::server(server);
        if *before == nothing {
            sentences.push(format!("look after server {name} of {service}: {after}"));
        } else if before != after {
            sentences.push(format!("look otherwise after server {name} of {service}: {before} -> {after}"));
        }
    }
    let gone = now.servers.keys().filter(|server| !wanted.servers.contains_key(server));
    sentences
        .extend(gone.map(|server| format!("do not look after server {} of {service}", plan::server(server))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::read(text).expect("no mistake")
    }

    #[test]
    fn a_difference_is_told_in_the_files_words() {
        let now = config(
            "interfaces = [\"eth0\"]\n[[service]]\ntcp = \"192.0.2.1:80\"\ncheck = \"tcp\"\n\
             servers = [\"10.0.0.1\", \"10.0.0.2\"]\n",
        );
        let wanted = config(
            "interfaces = [\"eth1\"]\n[[service]]\ntcp = \"192.0.2.1:80\"\nquorum = 2\nsorry = \"10.0.0.9\"\n\
             servers = [{ address = \"10.0.0.1\", check = { type = \"http\", fall = 1 } }, \"10.0.0.2\"]\n",
        );
        let told = [
            "attach to eth1",
            "let go of eth0",
            "change what holds for TCP 192.0.2.1:80: nothing -> quorum = 2, sorry = \"10.0.0.9:80\"",
            "look otherwise after server 10.0.0.1:80 of TCP 192.0.2.1:80: check = { type = \"tcp\", port = 80, via = \"path\" } -> \
             check = { type = \"http\", port = 80, via = \"path\", fall = 1 }",
            "do not look after server 10.0.0.2:80 of TCP 192.0.2.1:80",
        ];
        assert_eq!(sentences(&now, &wanted), told);
        assert!(sentences(&now, &now).is_empty());
        let back = sentences(&wanted, &now);
        let again = "look after server 10.0.0.2:80 of TCP 192.0.2.1:80: check = { type = \"tcp\", port = 80, via = \"path\" }";
        assert!(back.contains(&again.to_owned()), "{back:?}");
    }
}
