//! How HTTP's thread asks the daemon, and how the daemon answers.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use xlvs_model::view::ConnView;

use super::super::events::Found;
use super::super::{Daemon, control, trace};
use super::problem::Problem;
use crate::protocol::{Answer, Request};
use crate::trace::Wanted;

/// A daemon that takes longer is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Questions that the daemon deals with at once. Its other tasks have their turns in between.
const AT_ONCE: usize = 4;

/// Events in one answer.
const EVENTS: usize = 1000;

/// What the daemon is asked.
pub enum Call {
    /// A question with one answer.
    One(Request, oneshot::Sender<Answer>),
    /// What happened after the event with this number, or happens in so long.
    Events {
        /// The number.
        after: u64,
        /// How long.
        wait: Duration,
        /// What was found, and the last one's number.
        reply: oneshot::Sender<(Found, u64)>,
    },
    /// Traced packets, for as long as they are taken.
    Trace(Wanted, mpsc::Sender<Answer>),
    /// All connections, some at a time, for as long as they are taken.
    Connections(mpsc::Sender<Vec<ConnView>>),
}

/// The asking side.
#[derive(Clone)]
pub struct Asker {
    calls: mpsc::Sender<Call>,
}

impl Asker {
    /// Asks over this channel.
    pub fn new(calls: mpsc::Sender<Call>) -> Self {
        Self { calls }
    }

    /// Asks one question, and takes a refusal for a problem.
    pub async fn ask(&self, request: Request) -> Result<Answer, Problem> {
        match self.answer(request).await? {
            Answer::Failed(why) => Err(Problem::refused(why)),
            Answer::Refused(_, why) => Err(why.into()),
            answer => Ok(answer),
        }
    }

    /// Asks one question.
    pub async fn answer(&self, request: Request) -> Result<Answer, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(Call::One(request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(PATIENCE, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Problem::busy()),
        }
    }

    /// Asks for what has happened after the event with this number; if that is nothing, waits for something for so long. Also
    /// the number of the last that was found.
    pub async fn events(&self, after: u64, wait: Duration) -> Result<(Found, u64), Problem> {
        let (reply, found) = oneshot::channel();
        let call = Call::Events { after, wait, reply };
        self.calls.send(call).await.map_err(|_| Problem::busy())?;
        found.await.map_err(|_| Problem::busy())
    }

    /// Has packets traced, which come one by one.
    pub async fn trace(&self, wanted: Wanted) -> Result<mpsc::Receiver<Answer>, Problem> {
        let (to, told) = mpsc::channel(1);
        self.calls.send(Call::Trace(wanted, to)).await.map_err(|_| Problem::busy())?;
        Ok(told)
    }

    /// Asks for all connections, which come some at a time.
    pub async fn connections(&self) -> Result<mpsc::Receiver<Vec<ConnView>>, Problem> {
        let (to, some) = mpsc::channel(1);
        self.calls.send(Call::Connections(to)).await.map_err(|_| Problem::busy())?;
        Ok(some)
    }
}

/// Answers until nobody can ask any more.
pub async fn answer(daemon: Rc<Daemon>, mut asked: mpsc::Receiver<Call>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(call) = asked.recv().await {
        // Waiting takes no place: how many wait is bounded by the connections that there can be. Nobody closes the places.
        let place = match call {
            Call::Events { .. } | Call::Trace(..) => None,
            _ => Arc::clone(&places).acquire_owned().await.ok(),
        };
        let daemon = Rc::clone(&daemon);
        tokio::task::spawn_local(async move {
            let _place = place;
            match call {
                Call::One(request, reply) => {
                    let answer = control::answer(&daemon, request).await;
                    // Who asked may have gone.
                    let _sent = reply.send(answer);
                }
                Call::Events { after, wait, reply } => {
                    let _sent = reply.send(happened(&daemon, after, wait).await);
                }
                Call::Trace(wanted, to) => trace::trace(&daemon, wanted, to).await,
                Call::Connections(to) => {
                    let hand_over = async |some: Vec<ConnView>| to.send(some).await.map_err(io::Error::other);
                    // The rest is not wanted by who has seen enough.
                    let _seen = control::each_connection(&daemon, hand_over).await;
                }
            }
        });
    }
}

async fn happened(daemon: &Daemon, after: u64, wait: Duration) -> (Found, u64) {
    let mut cursor = daemon.events.ring().after(after);
    let found = daemon.events.ring().read(&mut cursor, EVENTS);
    if !found.events.is_empty() || timeout(wait, daemon.events.another()).await.is_err() {
        return (found, cursor - 1);
    }
    let found = daemon.events.ring().read(&mut cursor, EVENTS);
    (found, cursor - 1)
}
