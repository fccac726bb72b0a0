//! What `xlvs top` shows of a snapshot, and what keys do to it.

use std::cmp::Reverse;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use xlvs_health::{Health, Place};

use super::snapshot::{Load, ServerRow, ServiceRow, Snapshot};

/// What services, and the servers of each, are ordered by; the greatest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As the director lists them.
    #[default]
    Listed,
    /// Connections a second.
    Connections,
    /// Packets a second, both ways.
    Packets,
    /// Bytes a second, both ways.
    Bytes,
    /// Active connections.
    Active,
}

impl Order {
    fn next(self) -> Self {
        match self {
            Self::Listed => Self::Connections,
            Self::Connections => Self::Packets,
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Active,
            Self::Active => Self::Listed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Listed => "listing",
            Self::Connections => "conn/s",
            Self::Packets => "pkt/s",
            Self::Bytes => "byte/s",
            Self::Active => "active",
        }
    }

    fn rank(self, load: &Load) -> u64 {
        match self {
            Self::Listed => 0,
            Self::Connections => load.rates.cps,
            Self::Packets => packets(load),
            Self::Bytes => bytes(load),
            Self::Active => load.active,
        }
    }
}

fn packets(load: &Load) -> u64 {
    load.rates.in_pps + load.rates.out_pps
}

fn bytes(load: &Load) -> u64 {
    load.rates.in_bps + load.rates.out_bps
}

/// What an operator wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    order: Order,
    /// Only services and servers whose name has this in it.
    filter: String,
    is_typing: bool,
    /// Only servers that do not have their whole weight, or of which something is to be warned.
    only_troubled: bool,
    /// The line that is looked at, and the first that is shown.
    selected: usize,
    first: usize,
    /// Lines that the screen has for rows, when it was drawn last.
    page: usize,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    GoOn,
    /// It ends.
    End,
}

impl Screen {
    /// A key was pressed.
    pub fn press(&mut self, key: KeyCode) -> Next {
        if self.is_typing {
            self.type_filter(key);
            return Next::GoOn;
        }
        match key {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('t') => self.only_troubled = !self.only_troubled,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.selected += 1,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.selected += self.page,
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(self.page),
            KeyCode::Home => self.selected = 0,
            _ => {}
        }
        Next::GoOn
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    /// Draws a snapshot: head, heading, rows, and at the foot what the selected row has to say and what keys do.
    pub fn draw(&mut self, snapshot: &Snapshot, area: Rect, buffer: &mut Buffer) {
        let rows = self.rows(snapshot);
        let head = snapshot.head.len() as u16;
        self.page = usize::from(area.height.saturating_sub(head + 3)).max(1);
        self.selected = self.selected.min(rows.len().saturating_sub(1));
        self.first = self.first.clamp((self.selected + 1).saturating_sub(self.page), self.selected);
        let mut put = |at: u16, text: &str, style: Style| {
            if at < area.height {
                let width = usize::from(area.width);
                buffer.set_string(area.x, area.y + at, format!("{text:<width$.width$}"), style);
            }
        };
        for (at, line) in snapshot.head.iter().enumerate() {
            put(at as u16, line, Style::new());
        }
        let is_wide = area.width >= WIDE;
        put(head, &heading(is_wide), Style::new().add_modifier(Modifier::REVERSED));
        let shown = rows.iter().enumerate().skip(self.first).take(self.page);
        for (at, (number, row)) in shown.enumerate() {
            let style =
                if number == self.selected { row.style().add_modifier(Modifier::BOLD) } else { row.style() };
            let mark = if number == self.selected { '>' } else { ' ' };
            put(head + 1 + at as u16, &format!("{mark}{}", row.line(is_wide)), style);
        }
        let foot = area.height.saturating_sub(2);
        put(foot, &rows.get(self.selected).map(Row::about).unwrap_or_default(), Style::new());
        put(foot + 1, &self.help(), Style::new().add_modifier(Modifier::REVERSED));
    }

    /// So many lines show all of it.
    pub fn height_of(&self, snapshot: &Snapshot) -> u16 {
        let lines = snapshot.head.len() + 3 + self.rows(snapshot).len().max(1);
        u16::try_from(lines).unwrap_or(u16::MAX)
    }

    fn help(&self) -> String {
        if self.is_typing {
            return format!("/{}_  Enter: keep it, Esc: show all", self.filter);
        }
        let filter = if self.filter.is_empty() { String::new() } else { format!(" [{}]", self.filter) };
        let troubled = if self.only_troubled { " [on]" } else { "" };
        format!(
            "q quit  s sort [{}]  / filter{filter}  t troubled only{troubled}  arrows move",
            self.order.name()
        )
    }

    fn rows<'s>(&self, snapshot: &'s Snapshot) -> Vec<Row<'s>> {
        let mut services: Vec<&ServiceRow> = snapshot.services.iter().collect();
        services.sort_by_key(|service| Reverse(self.order.rank(&service.load)));
        let mut rows = Vec::new();
        for service in services {
            let has_name = service.name.contains(&self.filter);
            let wanted = |server: &&ServerRow| {
                (has_name || server.name.contains(&self.filter))
                    && (!self.only_troubled || server.is_troubled())
            };
            let mut servers: Vec<&ServerRow> = service.servers.iter().filter(wanted).collect();
            servers.sort_by_key(|server| Reverse(self.order.rank(&server.load)));
            if has_name && !self.only_troubled || !servers.is_empty() {
                rows.push(Row::Service(service));
                rows.extend(servers.into_iter().map(Row::Server));
            }
        }
        rows
    }
}

/// From this width on both directions and the reason are shown.
const WIDE: u16 = 120;

/// A line of the table.
enum Row<'s> {
    Service(&'s ServiceRow),
    Server(&'s ServerRow),
}

fn heading(is_wide: bool) -> String {
    let rates = match is_wide {
        true => "PKT/S IN     OUT BYTE/S IN     OUT",
        false => "  PKT/S  BYTE/S",
    };
    let reason = if is_wide { "  REASON" } else { "" };
    format!(
        " {:<23} {:>7} {:>7} {:>7} {rates} {:>7} {:>7}{reason}",
        "SERVICE", "WEIGHT", "HEALTH", "CONN/S", "ACTIVE", "INACT"
    )
}

impl Row<'_> {
    fn line(&self, is_wide: bool) -> String {
        match self {
            Self::Service(service) => {
                let name = format!("{} {}", service.name, service.scheduler);
                columns(&name, "", "", &service.load, "", is_wide)
            }
            Self::Server(server) => {
                let weight = match server.effective.place {
                    Place::In(weight) if weight == server.stated => weight.to_string(),
                    Place::In(weight) => format!("{weight}/{}", server.stated),
                    Place::Out => format!("out/{}", server.stated),
                };
                let health = match server.health {
                    Health::Unchecked => "-",
                    Health::Unknown => "unknown",
                    Health::Up if server.warning.is_some() => "up!",
                    Health::Up => "up",
                    Health::Down => "DOWN",
                };
                let name = format!("  {}", server.name);
                columns(&name, &weight, health, &server.load, &server.reason(), is_wide)
            }
        }
    }

    fn style(&self) -> Style {
        match self {
            Self::Service(_) => Style::new().fg(Color::Cyan),
            Self::Server(server) if server.effective.reason.is_failure() => Style::new().fg(Color::Red),
            Self::Server(server) if server.is_troubled() => Style::new().fg(Color::Yellow),
            Self::Server(_) => Style::new(),
        }
    }

    /// What there is no room for in its line.
    fn about(&self) -> String {
        match self {
            Self::Service(service) => {
                format!("{}: {}, {} servers", service.name, service.scheduler, service.servers.len())
            }
            Self::Server(server) => match server.reason() {
                reason if reason.is_empty() => format!("{}: as configured", server.name),
                reason => format!("{}: {reason}", server.name),
            },
        }
    }
}

fn columns(name: &str, weight: &str, health: &str, load: &Load, reason: &str, is_wide: bool) -> String {
    let Load { rates, active, inactive } = load;
    let each = |numbers: &[u64]| {
        let numbers: Vec<String> = numbers.iter().map(|number| format!("{:>7}", short(*number))).collect();
        numbers.join(" ")
    };
    let rates_shown = match is_wide {
        true => format!(
            "{:>8} {:>7} {:>9} {:>7}",
            short(rates.in_pps),
            short(rates.out_pps),
            short(rates.in_bps),
            short(rates.out_bps)
        ),
        false => each(&[packets(load), bytes(load)]),
    };
    let reason = if reason.is_empty() || !is_wide { String::new() } else { format!("  {reason}") };
    format!(
        "{name:<23.23} {weight:>7} {health:>7} {} {rates_shown} {}{reason}",
        each(&[rates.cps]),
        each(&[*active, *inactive])
    )
}

/// At most six characters: 99999, 1234k, 1234M, 1234G.
fn short(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}
