//! How HTTP's thread asks the daemon, and how the daemon answers.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use xlvs_model::view::ConnView;

use super::super::{Daemon, control};
use super::problem::Problem;
use crate::protocol::{Answer, Request};

/// A daemon that takes longer is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Questions that the daemon deals with at once. Its other tasks have their turns in between.
const AT_ONCE: usize = 4;

/// What the daemon is asked.
pub enum Call {
    /// A question with one answer.
    One(Request, oneshot::Sender<Answer>),
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

    /// Asks one question.
    pub async fn ask(&self, request: Request) -> Result<Answer, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(Call::One(request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(PATIENCE, asked).await {
            Ok(Some(Answer::Failed(why))) => Err(Problem::refused(why)),
            Ok(Some(Answer::Refused(_, why))) => Err(why.into()),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Problem::busy()),
        }
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
        // Nobody closes them.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let daemon = Rc::clone(&daemon);
        tokio::task::spawn_local(async move {
            let _place = place;
            match call {
                Call::One(request, reply) => {
                    let answer = control::answer(&daemon, request).await;
                    // Who asked may have gone.
                    let _sent = reply.send(answer);
                }
                Call::Connections(to) => {
                    let hand_over = async |some: Vec<ConnView>| to.send(some).await.map_err(io::Error::other);
                    // The rest is not wanted by who has seen enough.
                    let _seen = control::each_connection(&daemon, hand_over).await;
                }
            }
        });
    }
}
