//! A small HTTP server for each real server.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::netns::Netns;
use crate::stream::Stream;
use crate::topology::Lab;

/// A client that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves HTTP from one real server until dropped: `/` answers its name, `/big?n=N` so many bytes
/// of a stream which the client knows too.
pub struct HttpServer {
    listener: Arc<TcpListener>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts it on all addresses of a namespace, both families.
    pub fn start(netns: &Netns, name: &str, port: u16) -> anyhow::Result<HttpServer> {
        let listener = netns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        let listener =
            Arc::new(listener.with_context(|| format!("listen on port {port} in {}", netns.name()))?);
        let served = Arc::new(AtomicU64::new(0));
        let (accepting, counter, name) = (listener.clone(), served.clone(), name.to_owned());
        let thread = std::thread::spawn(move || serve_all(&accepting, &name, &counter));
        Ok(HttpServer { listener, served, thread: Some(thread) })
    }

    /// Starts one on every real server of a lab.
    pub fn on_all(lab: &Lab, port: u16) -> anyhow::Result<Vec<HttpServer>> {
        lab.servers.iter().map(|server| HttpServer::start(&server.netns, &server.name, port)).collect()
    }

    /// How many requests it has answered.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        stop_accepting(&*self.listener);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Wakes whoever waits in `accept`, with an error.
pub(crate) fn stop_accepting(listener: &impl AsRawFd) {
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
}

fn serve_all(listener: &TcpListener, name: &str, served: &Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept() {
        let (name, served) = (name.to_owned(), served.clone());
        // A client that hangs up early is no concern of the server.
        std::thread::spawn(move || drop(serve(stream, &name, &served)));
    }
}

fn serve(mut stream: TcpStream, name: &str, served: &AtomicU64) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let target = read_request(&stream)?;
    served.fetch_add(1, Ordering::Relaxed);
    match target.strip_prefix("/big?n=").and_then(|length| length.parse().ok()) {
        Some(length) => answer_stream(&mut stream, length)?,
        None if target == "/" => answer(&mut stream, "200 OK", &format!("{name}\n"))?,
        None => answer(&mut stream, "404 Not Found", "there is only / and /big?n=N here\n")?,
    }
    stream.shutdown(Shutdown::Write)
}

/// What is asked for, once all of the request is in.
fn read_request(stream: &TcpStream) -> Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> Result<()> {
    let head = head(status, body.len() as u64);
    stream.write_all(format!("{head}{body}").as_bytes())
}

fn answer_stream(stream: &mut TcpStream, length: u64) -> Result<()> {
    stream.write_all(head("200 OK", length).as_bytes())?;
    let (mut bytes, mut buffer) = (Stream::new(length), vec![0; 1 << 16]);
    loop {
        match bytes.fill(&mut buffer) {
            0 => return Ok(()),
            filled => stream.write_all(&buffer[..filled])?,
        }
    }
}

fn head(status: &str, length: u64) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}
