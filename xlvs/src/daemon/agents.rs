//! Asks servers' agents what share of their weight they want, and tells the keeper.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep, timeout_at};
use xlvs_health::agent::question::Heard;
use xlvs_health::agent::share::is_in_service;
use xlvs_health::agent::{Answer, Pace, Question, QuestionError, Share};
use xlvs_health::keeper::ServerId;
use xlvs_health::{AgentWord, Health};
use xlvs_model::watch::AgentSpec;

use super::Daemon;
use crate::plan;

/// So often it is looked who has an agent, and who begins slowly.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An agent that goes on saying nothing is spoken of so often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Never ends. Every agent has a task of its own, so that none waits for another.
pub async fn run(daemon: Rc<Daemon>) {
    let mut asked: HashMap<ServerId, (AgentSpec, AbortHandle)> = HashMap::new();
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let keeper = daemon.checks.keeper.borrow();
        let agents: HashMap<ServerId, &AgentSpec> = keeper.agents().collect();
        asked.retain(|id, (spec, task)| {
            let stays = agents.get(id) == Some(&&*spec);
            if !stays {
                task.abort();
            }
            stays
        });
        for (id, spec) in agents {
            asked.entry(id).or_insert_with(|| {
                let task = tokio::task::spawn_local(follow(Rc::clone(&daemon), id, spec.clone()));
                (spec.clone(), task.abort_handle())
            });
        }
    }
}

/// Follows one agent until the task is ended.
async fn follow(daemon: Rc<Daemon>, id: ServerId, spec: AgentSpec) {
    let pace = Pace::from(&spec);
    // What the daemon before has heard goes on.
    let mut followed = Followed::new(id, pace, daemon.checks.keeper.borrow().agent_word(id));
    let at = SocketAddr::new(spec.address.unwrap_or(id.1.addr), spec.port);
    // Agents that were named together are not asked together.
    sleep(spec.interval.mul_f64(fastrand::f64())).await;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            next = Instant::now() + spec.interval;
            let heard = ask(&spec, at).await;
            daemon.work.asked_agent(heard.is_ok());
            followed.hear(heard);
        }
        followed.tell(&daemon);
        let wait = next.saturating_duration_since(Instant::now());
        sleep(wait.min(LOOK_EVERY)).await;
    }
}

/// What is known of one agent.
struct Followed {
    id: ServerId,
    share: Share,
    said: AgentWord,
    began: Instant,
    complained: Option<Instant>,
}

impl Followed {
    fn new(id: ServerId, pace: Pace, said: AgentWord) -> Self {
        let mut share = Share::new(pace);
        if said != AgentWord::default() {
            share.said(said);
        }
        Self { id, share, said, began: Instant::now(), complained: None }
    }

    /// An agent that says nothing, or nonsense, leaves everything as it was.
    fn hear(&mut self, heard: Result<Answer, QuestionError>) {
        let (service, server) = (plan::service(&self.id.0), plan::server(&self.id.1));
        match heard {
            Ok(answer) => {
                let said = answer.after(Some(self.said));
                if (said.mode, said.is_down) != (self.said.mode, self.said.is_down) {
                    let because = answer.because.unwrap_or_default();
                    tracing::info!(%service, %server, mode = ?said.mode, is_down = said.is_down, %because, "the agent says");
                }
                if self.complained.take().is_some() {
                    tracing::info!(%service, %server, "the agent answers again");
                }
                self.said = said;
                self.share.said(said);
            }
            Err(why) => {
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    tracing::warn!(%service, %server, %why, "the agent tells nothing; the weight stays as it was");
                    self.complained = Some(Instant::now());
                }
            }
        }
    }

    /// Tells the keeper what is in force now.
    fn tell(&mut self, daemon: &Daemon) {
        let now = self.began.elapsed();
        let mut keeper = daemon.checks.keeper.borrow_mut();
        let serves = is_in_service(self.said) && keeper.health(self.id) != Health::Down;
        self.share.serves(serves, now);
        let word = self.share.word(self.said, now);
        if keeper.agent_word(self.id) != word {
            keeper.agent_said(self.id, word);
            drop(keeper);
            daemon.checks.ring();
        }
    }
}

/// One exchange.
async fn ask(spec: &AgentSpec, at: SocketAddr) -> Result<Answer, QuestionError> {
    let deadline = tokio::time::Instant::now() + spec.timeout;
    let begun = timeout_at(deadline, begin(spec, at)).await;
    let mut stream = begun.map_err(|_| QuestionError::TimedOut)?.map_err(refused)?;
    let mut question = Question::new(spec.most);
    let mut buffer = [0; 512];
    loop {
        let heard = match timeout_at(deadline, stream.read(&mut buffer)).await {
            // Who resets the connection has hung up.
            Ok(Ok(0) | Err(_)) => Heard::End,
            Ok(Ok(length)) => Heard::Bytes(&buffer[..length]),
            Err(_) => Heard::Timeout,
        };
        if let Some(outcome) = question.step(heard) {
            return outcome;
        }
    }
}

/// Connects, and says what the agent wants to hear.
async fn begin(spec: &AgentSpec, at: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(spec.send.as_deref().unwrap_or_default().as_bytes()).await?;
    Ok(stream)
}

fn refused(why: std::io::Error) -> QuestionError {
    QuestionError::NotConnected(why.to_string())
}
