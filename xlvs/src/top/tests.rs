//! Screens, as a terminal in memory shows them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use xlvs_health::{Effective, Health, Place, Reason, Standing};
use xlvs_model::spec::{Method, Protocol, Scheduler};
use xlvs_model::view::{Rates, ServerView, ServiceView};
use xlvs_model::{ServerKey, ServerSpec, ServiceKey, ServiceSpec};

use super::screen::{Next, Screen};
use super::snapshot::{ServerRow, Snapshot, rows};

fn service(host: u8, servers: Vec<ServerView>) -> ServiceView {
    let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: [192, 0, 2, host].into(), port: 80 };
    let stats = Default::default();
    let sum = |of: fn(&Rates) -> u64| servers.iter().map(|server| of(&server.rates)).sum();
    let rates = Rates {
        cps: sum(|rates| rates.cps),
        in_pps: sum(|rates| rates.in_pps),
        out_pps: sum(|rates| rates.out_pps),
        in_bps: sum(|rates| rates.in_bps),
        out_bps: sum(|rates| rates.out_bps),
    };
    ServiceView { spec: ServiceSpec::new(key, Scheduler::Wlc), stats, rates, servers }
}

fn server(host: u8, weight: u32, cps: u64) -> ServerView {
    let key = ServerKey { addr: [10, 0, 0, host].into(), port: 8080 };
    let rates =
        Rates { cps, in_pps: cps * 10, out_pps: cps * 8, in_bps: cps * 9_000, out_bps: cps * 150_000 };
    let spec = ServerSpec { weight, ..ServerSpec::new(key, Method::Masquerade) };
    ServerView { rates, active: cps as u32 * 3, inactive: cps as u32, ..ServerView::from(&spec) }
}

/// Two services: one with a server that has half its weight, one that is out and one that is warned of; one of many servers.
fn site() -> Snapshot {
    let halved = server(12, 2, 40);
    let first = service(10, vec![server(11, 4, 123), halved.clone(), server(14, 4, 0)]);
    let second = service(20, (21..61).map(|host| server(host, 1, u64::from(host))).collect());
    let standing = |stated: ServerSpec, effective, health, detail: Option<&str>| Standing {
        service: first.spec.key,
        stated,
        effective,
        health,
        operator: Default::default(),
        agent: None,
        detail: detail.map(str::to_owned),
        warning: None,
    };
    let out = Effective { place: Place::Out, reason: Reason::CheckFailed };
    let whole = Effective { place: Place::In(4), reason: Reason::AsConfigured };
    let half = Effective { place: Place::In(2), reason: Reason::AgentShare(50) };
    let standings = vec![
        standing(ServerSpec { weight: 4, ..halved.spec }, half, Health::Up, None),
        standing(server(13, 4, 0).spec, out, Health::Down, Some("connection refused")),
        Standing {
            warning: Some("its certificate expires on 2026-12-01 at 12:00 UTC".to_owned()),
            ..standing(server(14, 4, 0).spec, whole, Health::Up, None)
        },
    ];
    let head = vec![
        "xlvs 0.1.0, up 4711 s; eth0 native, eth1 generic".to_owned(),
        "489 active, 163 inactive, 0.1 % of the table; 123456 forwarded, 7 dropped".to_owned(),
    ];
    Snapshot { head, services: rows(&[first, second], standings) }
}

fn shown(screen: &mut Screen, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    let site = site();
    terminal.draw(|frame| screen.draw(&site, frame.area(), frame.buffer_mut())).expect("it can be drawn on");
    let cells = terminal.backend().buffer().content.chunks(usize::from(width));
    let lines =
        cells.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    lines.map(|line| line + "\n").collect()
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let key = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        assert_eq!(screen.press(key), Next::GoOn, "{key}");
    }
}

/// The servers whose lines are shown, by the last number of their address.
fn servers(screen: &mut Screen) -> Vec<u8> {
    let text = shown(screen, (80, 24));
    let hosts = text.lines().filter_map(|line| {
        line.get(1..)?.trim_start().strip_prefix("10.0.0.")?.split(':').next()?.parse().ok()
    });
    hosts.take(20).collect()
}

#[test]
fn a_small_screen_has_what_matters() {
    assert_eq!(shown(&mut Screen::default(), (80, 24)), include_str!("80x24.txt"));
}

#[test]
fn a_large_screen_has_both_directions_and_the_reasons() {
    assert_eq!(shown(&mut Screen::default(), (200, 50)), include_str!("200x50.txt"));
}

#[test]
fn a_tiny_screen_does_no_harm() {
    for size in [(1, 1), (10, 3), (80, 4), (3, 30)] {
        shown(&mut Screen::default(), size);
    }
}

#[test]
fn s_goes_through_the_orders() {
    let mut screen = Screen::default();
    assert_eq!(servers(&mut screen)[..4], [11, 12, 14, 13]);
    press(&mut screen, "s");
    assert_eq!(
        servers(&mut screen)[..3],
        [60, 59, 58],
        "the busiest service first, its busiest server first"
    );
    press(&mut screen, "ssss");
    assert_eq!(servers(&mut screen)[..4], [11, 12, 14, 13]);
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut screen = Screen::default();
    press(&mut screen, "/.0.12q");
    assert_eq!(servers(&mut screen), [0; 0], "q is a letter here");
    screen.press(KeyCode::Backspace);
    press(&mut screen, "\n");
    assert_eq!(servers(&mut screen), [12]);
    screen.press(KeyCode::Esc);
    assert_eq!(servers(&mut screen).len(), 17);
    press(&mut screen, "/192.0.2.10\n");
    assert_eq!(servers(&mut screen), [11, 12, 14, 13], "a service is shown with its servers");
    assert_eq!(screen.press(KeyCode::Char('q')), Next::End);
}

#[test]
fn t_shows_only_servers_that_do_not_have_their_weight_or_are_warned_of() {
    let mut screen = Screen::default();
    press(&mut screen, "t");
    assert_eq!(servers(&mut screen), [12, 14, 13]);
}

#[test]
fn the_foot_tells_of_the_selected_row_and_the_page_follows_it() {
    let mut screen = Screen::default();
    press(&mut screen, "jjj");
    let foot = |text: String| text.lines().rev().nth(1).unwrap_or_default().to_owned();
    let told = foot(shown(&mut screen, (80, 24)));
    assert_eq!(told, "10.0.0.14:8080: warning: its certificate expires on 2026-12-01 at 12:00 UTC");
    press(&mut screen, "j");
    let told = foot(shown(&mut screen, (80, 24)));
    assert_eq!(told, "10.0.0.13:8080: a check failed: connection refused");
    (0..9).for_each(|_| drop((shown(&mut screen, (80, 24)), screen.press(KeyCode::PageDown))));
    let text = shown(&mut screen, (80, 24));
    assert!(text.contains(">  10.0.0.60:8080"), "{text}");
    screen.press(KeyCode::Home);
    assert_eq!(servers(&mut screen)[0], 11);
}

#[test]
fn a_server_that_nobody_looks_after_has_nothing_to_tell() {
    let site = site();
    let reasons: Vec<String> = site.services[0].servers.iter().map(ServerRow::reason).collect();
    let warning = "warning: its certificate expires on 2026-12-01 at 12:00 UTC";
    assert_eq!(reasons, ["", "its agent says 50 %", warning, "a check failed: connection refused"]);
}
