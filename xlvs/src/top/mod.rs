//! `xlvs top`: services and servers as they are now, and now, and now.

mod screen;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;

use crate::client::Client;
use crate::paths::Paths;
use screen::{Next, Screen};
use snapshot::Snapshot;

/// How to show it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print all of it once and end; needs no terminal.
    #[arg(long)]
    once: bool,
    /// Columns of what --once prints.
    #[arg(long, value_name = "N", default_value_t = 80, requires = "once", value_parser = clap::value_parser!(u16).range(40..=500))]
    width: u16,
    /// Ask the director so often, in seconds. Rates are the estimators', which change every two seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// The director's places.
    #[command(flatten)]
    paths: Paths,
}

/// Shows the director until q is pressed.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut client = Client::connected(&options.paths)?;
    let snapshot = Snapshot::take(&mut client)?;
    if options.once {
        return once(&snapshot, options.width);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("this is no terminal; `xlvs top --once` prints one screen");
    }
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let shown = show(&mut terminal, &mut client, snapshot, Duration::from_secs(options.interval));
    let restored = ratatui::try_restore().context("give the terminal back");
    shown.and(restored)?;
    Ok(ExitCode::SUCCESS)
}

fn once(snapshot: &Snapshot, width: u16) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::default();
    let area = Rect::new(0, 0, width, screen.height_of(snapshot));
    let mut buffer = Buffer::empty(area);
    screen.draw(snapshot, area, &mut buffer);
    let mut out = io::stdout().lock();
    // The foot speaks of keys.
    for line in buffer.content.chunks(usize::from(width)).take(usize::from(area.height) - 2) {
        let text: String = line.iter().map(|cell| cell.symbol()).collect();
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    terminal: &mut DefaultTerminal,
    client: &mut Client,
    mut snapshot: Snapshot,
    every: Duration,
) -> anyhow::Result<()> {
    let mut screen = Screen::default();
    let mut next = Instant::now() + every;
    loop {
        terminal.draw(|frame| screen.draw(&snapshot, frame.area(), frame.buffer_mut()))?;
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            let Some((key, is_interrupt)) = pressed(&event::read()?) else { continue };
            if is_interrupt || screen.press(key) == Next::End {
                return Ok(());
            }
        } else {
            snapshot = Snapshot::take(client)?;
            next = Instant::now() + every;
        }
    }
}

/// The key, and whether it is control-C, which is no signal while the terminal is ours.
fn pressed(event: &Event) -> Option<(KeyCode, bool)> {
    let Event::Key(key) = event else { return None };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    (key.kind != KeyEventKind::Release).then_some((key.code, is_interrupt))
}
