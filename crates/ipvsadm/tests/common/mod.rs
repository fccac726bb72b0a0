//! A director that is only a model, names that are always the same, and a way to call the command.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use xlvs_ipvsadm::{Applet, Backend, Resolver, Services, Session, Stopped, Unreachable};
use xlvs_model::spec::Protocol;
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::{Change, Model, Refusal, ServiceKey, Timeouts};

/// The recorded director's interfaces.
const INTERFACES: [&str; 3] = ["lo", "l0", "l1"];

/// Sets the counters of a view.
pub type Counted = Box<dyn Fn(&mut ServiceView)>;

/// A model with what a director has besides.
#[derive(Default)]
pub struct Director {
    pub model: Model,
    pub connections: Vec<ConnView>,
    /// Changes a listing before it is shown: counters, mostly.
    pub counted: Option<Counted>,
    pub closed: Option<Unreachable>,
    /// How often changes were applied.
    pub applied: usize,
}

impl Director {
    fn take(&mut self, change: &Change) -> Result<(), Refusal> {
        if let Change::StartSync(daemon) = change
            && !INTERFACES.contains(&daemon.interface.as_str())
        {
            return Err(Refusal::NoDevice);
        }
        self.model.apply(change)
    }
}

impl Backend for Director {
    fn open(&mut self) -> Result<(), Unreachable> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Stopped> {
        self.applied += 1;
        for (at, change) in changes.iter().enumerate() {
            self.take(change).map_err(|why| Stopped::Refused { at, why })?;
        }
        Ok(())
    }

    fn services(&mut self, only: Option<&ServiceKey>) -> io::Result<Vec<ServiceView>> {
        let wanted = |service: &&xlvs_model::state::Service| only.is_none_or(|key| service.spec.key == *key);
        let mut views: Vec<_> = self.model.services().iter().filter(wanted).map(ServiceView::from).collect();
        if let Some(count) = &self.counted {
            views.iter_mut().for_each(count);
        }
        Ok(views)
    }

    fn connections(&mut self, each: &mut dyn FnMut(&ConnView) -> io::Result<()>) -> io::Result<()> {
        self.connections.iter().try_for_each(each)
    }

    fn timeouts(&mut self) -> io::Result<Timeouts> {
        Ok(self.model.timeouts())
    }

    fn info(&mut self) -> io::Result<Info> {
        Ok(Info { table_size: 4096, daemons: self.model.daemons().to_vec() })
    }
}

/// The names that the recordings show, and one host.
pub struct Names(Services);

impl Names {
    pub fn new() -> Self {
        Self(Services::read(
            "domain 53/tcp # the Domain Name System\ndomain 53/udp\nhttp 80/tcp www\nhttps 443/tcp\n\
             nfs 2049/tcp\nsip 5060/tcp\nsip 5060/udp\nhttp-alt 8080/tcp webcache\nwebmin 10000/tcp\n",
        ))
    }
}

impl Resolver for Names {
    fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        (name == "rs1.example.net").then(|| Ipv4Addr::new(10, 1, 0, 11))
    }

    fn host_name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn service_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.port(name, protocol)
    }

    fn service_name(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.0.name(port, protocol)
    }
}

/// What an invocation left behind.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub rc: i32,
    pub out: String,
    pub err: String,
}

/// Calls one of the three commands.
pub fn call(applet: Applet, director: &mut Director, args: Vec<OsString>, mut stdin: &[u8]) -> Done {
    call_with(&Names::new(), applet, director, args, &mut stdin)
}

/// Calls one of the three commands with these names.
pub fn call_with(
    names: &dyn Resolver,
    applet: Applet,
    director: &mut Director,
    args: Vec<OsString>,
    stdin: &mut &[u8],
) -> Done {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut session =
        Session { program: "/sbin/ipvsadm", backend: director, names, stdin, out: &mut out, err: &mut err };
    let rc = session.run(applet, args);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { rc, out: text(out), err: text(err) }
}

/// Calls `ipvsadm` with the words of a line.
pub fn ipvsadm(director: &mut Director, line: &str, stdin: &str) -> Done {
    call(Applet::Ipvsadm, director, line.split_whitespace().map(OsString::from).collect(), stdin.as_bytes())
}
