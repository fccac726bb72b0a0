//! The commands' side of the control socket.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use xlvs_ipvsadm::{Applet, Backend, Session, Stopped, System, Unreachable};
use xlvs_model::view::{ConnView, Info, ServiceView};
use xlvs_model::{Change, ServiceKey, Timeouts};

use crate::paths::Paths;
use crate::protocol::{Answer, Request};

/// A conversation with the daemon.
pub struct Client {
    paths: Paths,
    stream: Option<BufReader<UnixStream>>,
}

impl Client {
    /// A client of the director that lives in these places; nothing is opened yet.
    pub fn new(paths: Paths) -> Self {
        Self { paths, stream: None }
    }

    /// The same, connected; the error says what to do.
    pub fn connected(paths: &Paths) -> anyhow::Result<Self> {
        let mut client = Self::new(paths.clone());
        match client.connect() {
            Ok(()) => Ok(client),
            Err(Unreachable::Absent { reason, advice }) => anyhow::bail!("{reason}; {advice}"),
            Err(why) => Err(why.into()),
        }
    }

    /// Connects.
    pub fn connect(&mut self) -> Result<(), Unreachable> {
        let socket = self.paths.socket();
        match UnixStream::connect(&socket) {
            Ok(stream) => {
                self.stream = Some(BufReader::new(stream));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Unreachable::NotPermitted),
            Err(e) => Err(Unreachable::Absent {
                reason: format!("no director answers at {} ({e})", socket.display()),
                advice: "is `xlvs run` running?".to_owned(),
            }),
        }
    }

    /// Asks one question and takes the first answer.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request)?;
        self.next_answer()
    }

    /// Asks a question that has many answers, and hands on every one until there has been enough (`false`).
    pub fn stream(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Answer) -> io::Result<bool>,
    ) -> io::Result<()> {
        self.send(request)?;
        while each(self.next_answer()?)? {}
        Ok(())
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line)
    }

    fn next_answer(&mut self) -> io::Result<Answer> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the director stopped answering"));
        }
        match serde_json::from_str(&line)? {
            Answer::Failed(why) => Err(io::Error::other(why)),
            answer => Ok(answer),
        }
    }
}

impl Backend for Client {
    fn open(&mut self) -> Result<(), Unreachable> {
        self.connect()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Stopped> {
        match self.ask(&Request::Apply(changes.to_vec()))? {
            Answer::Done => Ok(()),
            Answer::Refused(at, why) => Err(Stopped::Refused { at, why }),
            other => Err(other.unexpected().into()),
        }
    }

    fn services(&mut self, only: Option<&ServiceKey>) -> io::Result<Vec<ServiceView>> {
        match self.ask(&Request::Services(only.copied()))? {
            Answer::Services(services) => Ok(services),
            other => Err(other.unexpected()),
        }
    }

    fn connections(&mut self, each: &mut dyn FnMut(&ConnView) -> io::Result<()>) -> io::Result<()> {
        self.send(&Request::Connections)?;
        loop {
            match self.next_answer()? {
                Answer::Connection(conn) => each(&conn)?,
                Answer::Done => return Ok(()),
                other => return Err(other.unexpected()),
            }
        }
    }

    fn timeouts(&mut self) -> io::Result<Timeouts> {
        match self.ask(&Request::Timeouts)? {
            Answer::Timeouts(timeouts) => Ok(timeouts),
            other => Err(other.unexpected()),
        }
    }

    fn info(&mut self) -> io::Result<Info> {
        match self.ask(&Request::Info)? {
            Answer::Info(info) => Ok(info),
            other => Err(other.unexpected()),
        }
    }
}

/// Runs `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore` against the daemon.
pub fn ipvsadm(applet: Applet, words: Vec<OsString>) -> ExitCode {
    let mut client = Client::new(Paths::from_environment());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut err = io::stderr().lock();
    let mut stdin = io::stdin().lock();
    let mut session = Session {
        program: "ipvsadm",
        backend: &mut client,
        names: &System::default(),
        stdin: &mut stdin,
        out: &mut out,
        err: &mut err,
    };
    let code = session.run(applet, words);
    match out.flush() {
        Ok(()) => ExitCode::from(code as u8),
        // Whoever read us has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(code as u8),
        Err(e) => {
            eprintln!("ipvsadm: writing to standard output: {e}");
            ExitCode::FAILURE
        }
    }
}
