//! A picture of the main rows, as SVG.

use std::fmt::Write;

use crate::report::Report;

/// Rows that are shown, and what they are called in the picture.
const ROWS: [(&str, &str); 7] = [
    ("not ours, TCP IPv4", "not ours, to the stack"),
    ("DR, TCP IPv4, established, one flow", "DR"),
    ("NAT request, TCP IPv4, established, one flow", "NAT, request"),
    ("TUN, TCP IPv4, established, one flow", "TUN"),
    ("NAT reply, TCP IPv4, established, one flow", "NAT, reply (with the kernel's route)"),
    ("DR, TCP IPv4, established, 1 M flows", "DR, 1 M flows"),
    ("DR, TCP IPv4, new, wlc over 16", "DR, new connection, wlc over 16"),
];

const WIDTH: f64 = 760.0;
const LABELS: f64 = 250.0;
const LONGEST: f64 = WIDTH - LABELS - 90.0;
const STEP: f64 = 22.0;

/// A bar: what it is called, how long, what is written at its end, and whether it is ours.
struct Bar {
    label: String,
    value: f64,
    text: String,
    is_ours: bool,
}

/// Draws it.
pub fn draw(report: &Report) -> String {
    let groups = [
        ("nanoseconds a packet in the director's program", rows(report)),
        ("microseconds that a director adds to a packet, through veth", live(report, "UDP packets")),
        (
            "microseconds that a director adds to a TCP connection, through veth",
            live(report, "TCP connections"),
        ),
    ];
    let (mut body, mut y) = (String::new(), 20.0);
    for (title, bars) in groups.iter().filter(|(_, bars)| !bars.is_empty()) {
        draw_group(&mut body, &mut y, title, bars);
    }
    let machine = &report.machine;
    let foot = format!("{}, Linux {}, {}", machine.date, machine.kernel, machine.cpu);
    let _written =
        write!(body, "<text x=\"0\" y=\"{:.0}\" class=\"foot\">{}</text>\n</svg>\n", y + 6.0, escaped(&foot));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>text {{ fill: #57606a }} .title {{ font-weight: bold }} .foot {{ font-size: 11px }}</style>\n{body}",
        y + 16.0
    )
}

fn rows(report: &Report) -> Vec<Bar> {
    let found = ROWS.iter().filter_map(|(name, label)| {
        let value = report.rows.iter().find(|line| line.name == *name)?.figure.min;
        Some(Bar { label: (*label).to_owned(), value, text: format!("{value:.0}"), is_ours: true })
    });
    found.collect()
}

fn live(report: &Report, kind: &str) -> Vec<Bar> {
    let of_kind = report.live.iter().filter(|live| live.name.starts_with(kind));
    // The first is the one without a director.
    let bars = of_kind.skip(1).map(|live| {
        let label = live.name.rsplit(": ").next().unwrap_or_default().to_owned();
        let is_ours = label.starts_with("xlvs");
        Bar { label, value: live.added_us, text: format!("{:.2}", live.added_us), is_ours }
    });
    bars.collect()
}

fn draw_group(body: &mut String, y: &mut f64, title: &str, bars: &[Bar]) {
    let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let _written = writeln!(body, "<text x=\"0\" y=\"{y:.0}\" class=\"title\">{}</text>", escaped(title));
    for Bar { label, value, text, is_ours } in bars {
        *y += STEP;
        let (length, colour) =
            (value.max(0.0) / longest * LONGEST, if *is_ours { "#1f6feb" } else { "#8c959f" });
        let _written = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\">{}</text><rect x=\"{LABELS}\" y=\"{:.0}\" width=\"{length:.0}\" \
             height=\"14\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{y:.0}\">{text}</text>",
            LABELS - 8.0,
            escaped(label),
            *y - 11.0,
            LABELS + length + 6.0
        );
    }
    *y += STEP * 1.8;
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::{Figure, Line};

    #[test]
    fn a_bar_twice_as_long_is_twice_as_much() {
        let line = |name: &str, ns| Line::new(name, Figure { ns, min: ns, spread: 0.0 });
        let rows = vec![line(ROWS[0].0, 10.0), line(ROWS[1].0, 20.0)];
        let picture = draw(&Report::new(Machine::default(), rows, Vec::new(), Vec::new()));
        assert!(picture.contains(&format!("width=\"{:.0}\" height=\"14\"", LONGEST)), "{picture}");
        assert!(picture.contains(&format!("width=\"{:.0}\" height=\"14\"", LONGEST / 2.0)), "{picture}");
        assert!(picture.contains(">not ours, to the stack<") && picture.ends_with("</svg>\n"));
    }
}
