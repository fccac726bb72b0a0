//! The words of a service, a server and an agent: those of `xlvs.toml`, in JSON.
//!
//! The file's reader reads them, so that they mean the same, are checked as strictly, and are refused in the same words. The
//! types here describe them; a test sees to it that they have the keys that the reader takes.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use xlvs_model::Config;

use super::super::problem::Problem;

/// Words with their values.
pub type Words = Map<String, Value>;

/// How long: seconds, or a text such as `"500ms"`, `"2s"`, `"5m"`.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "5m")]
#[expect(dead_code, reason = "it describes what the file's reader reads")]
pub enum Time {
    /// Seconds.
    Seconds(u32),
    /// With a unit.
    Text(String),
}

/// A service, as a `[[service]]` of `xlvs.toml`: `docs/configuration.md` explains the words. Words of servers hold for all of
/// `servers` that do not say otherwise.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({ "scheduler": "wlc", "method": "nat", "servers": ["10.0.0.11:8080", { "address": "10.0.0.12:8080", "weight": 2 }] }))]
#[expect(dead_code, reason = "it describes what the file's reader reads")]
pub struct ServiceWords {
    /// rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos, or none.
    #[schema(default = "wlc")]
    scheduler: Option<String>,
    /// `sh-port`, `sh-fallback`, `mh-port`, `mh-fallback`, `flag-1` to `flag-3`.
    flags: Option<Vec<String>>,
    /// `true` (6 minutes) or a time: clients come back to their server.
    #[schema(value_type = Option<Value>)]
    persistent: Option<Value>,
    /// Clients that are one: `"255.255.255.0"` or the length of a prefix.
    #[schema(value_type = Option<Value>)]
    netmask: Option<Value>,
    /// One-packet scheduling.
    ops: Option<bool>,
    /// The longest TCP segments that clients and servers may say they take: bytes, `"auto"` for what fits into the way to the server, or `false`.
    #[schema(value_type = Option<Value>)]
    mss: Option<Value>,
    /// Persistence engine.
    pe: Option<String>,
    /// Addresses, or objects of an `address` and a server's words. Without this word the servers stay as they are.
    #[schema(value_type = Option<Vec<Value>>)]
    servers: Option<Vec<Value>>,
    /// A server in reserve.
    #[schema(value_type = Option<Value>)]
    sorry: Option<Value>,
    /// Weights in force that it takes to serve.
    quorum: Option<u32>,
    /// So much less loses the quorum, and so much more gains it again.
    hysteresis: Option<u32>,
    /// When less than this percentage is up, checks are not believed.
    panic: Option<u32>,
    /// A command.
    #[schema(value_type = Option<Value>)]
    quorum_up: Option<Value>,
    /// A command.
    #[schema(value_type = Option<Value>)]
    quorum_down: Option<Value>,
    /// The words of its servers.
    #[serde(flatten)]
    of_servers: ServerWords,
}

/// A server, with the words of `xlvs.toml`.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({ "method": "nat", "weight": 2, "check": { "type": "http", "path": "/health" } }))]
#[expect(dead_code, reason = "it describes what the file's reader reads")]
pub struct ServerWords {
    /// `nat`, `dr` or `tun`.
    #[schema(default = "dr")]
    method: Option<String>,
    /// `ipip`, `gue` or `gre`.
    tun_type: Option<String>,
    /// Port of GUE.
    tun_port: Option<u16>,
    /// `nocsum`, `csum` or `remcsum`.
    tun_csum: Option<String>,
    /// 0 to 2147483647; 0: no new connections.
    #[schema(default = 1)]
    weight: Option<u32>,
    /// No new connections from so many on.
    upper: Option<u32>,
    /// Again below so many.
    lower: Option<u32>,
    /// A check: its type, an object, or a list of them.
    #[schema(value_type = Option<Value>)]
    check: Option<Value>,
    /// An agent: its port, or an object.
    #[schema(value_type = Option<Value>)]
    agent: Option<Value>,
    /// Down until a check has succeeded.
    alpha: Option<bool>,
    /// Weight 0 instead of removal when it fails.
    inhibit_on_failure: Option<bool>,
    /// What becomes of its connections when it fails: `keep` or `reset`.
    #[schema(default = "keep")]
    on_failure: Option<String>,
    /// The time in which half of its failures is forgotten; with too many it is held out.
    damping: Option<Time>,
    /// A command.
    #[schema(value_type = Option<Value>)]
    notify_up: Option<Value>,
    /// A command.
    #[schema(value_type = Option<Value>)]
    notify_down: Option<Value>,
}

/// Whom to ask for the share of its weight that a server wants, with the words of `xlvs.toml`.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({ "port": 8282, "interval": "2s" }))]
#[expect(dead_code, reason = "it describes what the file's reader reads")]
pub struct AgentWords {
    /// TCP port of the agent.
    port: u16,
    /// Whom to connect to instead of the server.
    address: Option<String>,
    /// From one question to the next.
    interval: Option<Time>,
    /// An agent that takes longer has said nothing.
    timeout: Option<Time>,
    /// Sent to the agent once connected.
    send: Option<String>,
    /// The largest share that it may ask for, in percent.
    most: Option<u16>,
    /// Of each new figure so many percent count.
    smoothing: Option<u16>,
    /// The share in force moves when the average is so many points away.
    step: Option<u16>,
    /// A server that returns gets its share within this.
    slow_start: Option<Time>,
}

/// A service's identity as a path names it.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Identity {
    /// `tcp`, `udp`, `sctp`, `mark` or `mark6`.
    pub kind: String,
    /// Address and port, or the mark.
    pub at: String,
}

impl Identity {
    /// As commands name it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind, self.at)
    }

    /// A file of this one service with these words. It can be read.
    pub fn file(&self, words: Words) -> Result<String, Problem> {
        let mut service = said(words);
        let mark = || self.at.parse::<u32>().map_or_else(|_| Value::from(&*self.at), Value::from);
        let mut say = |key: &str, value: Value| _ = service.insert(key.to_owned(), value);
        match self.kind.as_str() {
            kind @ ("tcp" | "udp" | "sctp") => say(kind, Value::from(&*self.at)),
            "mark" => say("mark", mark()),
            "mark6" => {
                say("mark", mark());
                say("family", "inet6".into());
            }
            kind => {
                return Err(Problem::absent(format!(
                    "there is no kind {kind}; it is tcp, udp, sctp, mark or mark6"
                )));
            }
        }
        let mut file = Words::new();
        file.insert("service".to_owned(), vec![Value::from(service)].into());
        let text =
            toml::to_string(&file).map_err(|why| Problem::refused(format!("this cannot be said: {why}")))?;
        read(&text)?;
        Ok(text)
    }

    /// A file of this service with this one server.
    pub fn file_with(&self, server: &str, mut words: Words) -> Result<String, Problem> {
        words = said(words);
        words.insert("address".to_owned(), server.into());
        let mut service = Words::new();
        service.insert("servers".to_owned(), vec![Value::from(words)].into());
        self.file(service)
    }
}

/// Words that are null are not said.
pub fn said(words: Words) -> Words {
    words.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Reads a file that was made of words, or tells what is wrong with them.
pub fn read(text: &str) -> Result<Config, Problem> {
    Config::read(text).map_err(|mistakes| {
        let told: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
        Problem::refused(told.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use utoipa::PartialSchema;
    use xlvs_model::config::OF_SERVERS;

    use super::*;

    fn identity(kind: &str, at: &str) -> Identity {
        Identity { kind: kind.to_owned(), at: at.to_owned() }
    }

    fn words(value: Value) -> Words {
        value.as_object().expect("an object").clone()
    }

    /// Properties that a description names, also by way of others.
    fn described<T: PartialSchema>() -> BTreeSet<String> {
        fn collect(value: &Value, found: &mut BTreeSet<String>) {
            if let Some(properties) = value.get("properties").and_then(Value::as_object) {
                found.extend(properties.keys().cloned());
            }
            for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
                collect(part, found);
                if part["$ref"] == "#/components/schemas/ServerWords" {
                    found.extend(described::<ServerWords>());
                }
            }
        }
        let mut found = BTreeSet::new();
        collect(&serde_json::to_value(T::schema()).expect("JSON"), &mut found);
        found
    }

    /// The keys that the reader says there are, when it is told of one that there is not.
    fn keys(file: &str) -> BTreeSet<String> {
        let said = Config::read(file).expect_err("an unknown key").in_file("f");
        let (_, keys) = said.split_once("it has ").unwrap_or_else(|| panic!("{said}"));
        keys.replace(" and ", ", ").split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_description_has_the_words_that_the_reader_takes() {
        let mut service = keys("[[service]]\ntcp = \"192.0.2.1:80\"\nxyzzy = 1\n");
        for identity in ["tcp", "udp", "sctp", "mark", "family"] {
            assert!(service.remove(identity));
        }
        assert_eq!(described::<ServiceWords>(), service);
        let mut server =
            keys("[[service]]\ntcp = \"192.0.2.1:80\"\nservers = [{ address = \"10.0.0.1\", xyzzy = 1 }]\n");
        assert!(server.remove("address"));
        assert_eq!(described::<ServerWords>(), server);
        assert_eq!(server, OF_SERVERS.iter().map(|word| (*word).to_owned()).collect());
        let agent = "[[service]]\ntcp = \"192.0.2.1:80\"\nservers = [{ address = \"10.0.0.1\", agent = { port = 1, xyzzy = 1 } }]\n";
        assert_eq!(described::<AgentWords>(), keys(agent));
    }

    #[test]
    fn words_mean_what_they_mean_in_the_file() {
        let file = identity("tcp", "192.0.2.1:80").file(words(json!({
            "scheduler": "rr", "method": "nat", "persistent": "5m",
            "servers": ["10.0.0.1", { "address": "10.0.0.2:8080", "weight": 3, "check": { "type": "http", "path": "/x" } }],
        })));
        let said = "[[service]]\ntcp = \"192.0.2.1:80\"\nscheduler = \"rr\"\nmethod = \"nat\"\npersistent = \"5m\"\n\
                    servers = [\"10.0.0.1\", { address = \"10.0.0.2:8080\", weight = 3, check = { type = \"http\", path = \"/x\" } }]\n";
        assert_eq!(Config::read(&file.expect("right")), Config::read(said));
        let file = identity("mark6", "7").file_with("fd00::1", words(json!({ "weight": 0 }))).expect("right");
        let said =
            "[[service]]\nmark = 7\nfamily = \"inet6\"\nservers = [{ address = \"fd00::1\", weight = 0 }]\n";
        assert_eq!(Config::read(&file), Config::read(said));
    }

    #[test]
    fn what_is_wrong_is_told_in_the_files_words() {
        let said =
            |at: &str, value: Value| identity("tcp", at).file(words(value)).expect_err("it is wrong").error;
        assert_eq!(
            said("192.0.2.1:80", json!({ "scheduler": "rrr" })),
            "there is no scheduler \"rrr\"; do you mean \"rr\"?"
        );
        assert!(said("192.0.2.1:80", json!({ "schedular": "rr" })).contains("do you mean `scheduler`?"));
        assert!(said("192.0.2.1", json!({})).contains("a port is missing"));
        assert!(
            said("192.0.2.1:80", json!({ "scheduler": "x", "weight": -1 })).contains("; "),
            "all mistakes are told"
        );
        assert!(said("192.0.2.1:80", json!({ "servers": [null] })).contains("cannot be said"));
        assert!(
            identity("tcp", "192.0.2.1:80").file(words(json!({ "scheduler": null }))).is_ok(),
            "it is not said"
        );
        assert!(
            identity("ftp", "x")
                .file(Words::new())
                .expect_err("no kind")
                .error
                .contains("there is no kind ftp")
        );
        assert!(
            identity("mark", "x")
                .file(Words::new())
                .expect_err("no mark")
                .error
                .contains("`mark` is a number")
        );
    }
}
