// What the director is, read again every two seconds while somebody looks. Names come from the director and are only ever
// written as text.
"use strict";

const EVERY_MS = 2000;
// Services that are shown at once, and points of their lines: ten minutes.
const SHOWN = 100;
const POINTS = 300;

const at = (id) => document.getElementById(id);
const lines = new Map();
let before = null;
let token = sessionStorage.getItem("token");

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function number(value, unit = "") {
  const steps = ["", "k", "M", "G", "T", "P"];
  let step = 0;
  while (value >= 9999.5 && step < steps.length - 1) { value /= 1000; step += 1; }
  const digits = step > 0 && value < 100 ? 1 : 0;
  const text = value.toLocaleString("en", { maximumFractionDigits: digits });
  return steps[step] + unit ? `${text} ${steps[step]}${unit}` : text;
}

function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [length, name] of parts) if (seconds >= length) return `${Math.floor(seconds / length)} ${name}`;
  return `${seconds} s`;
}

// A line over time; it begins at nothing, so that a small change of much is a small change.
function line(values, title) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  const most = Math.max(1, ...values);
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(2)} ${(29 - 28 * value / most).toFixed(2)}`);
  if (points.length < 2) return svg;
  for (const [kind, path] of [["area", `M0 30L${points.join("L")}L100 30Z`], ["line", `M${points.join("L")}`]]) {
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
    drawn.setAttribute("class", kind);
    drawn.setAttribute("d", path);
    svg.append(drawn);
  }
  return svg;
}

function chart(name, values, now, more) {
  const most = values.length ? Math.max(...values) : 0;
  return element("div", { class: "card chart" },
    element("div", { class: "name" }, name),
    element("div", { class: "now" }, now),
    line(values, `${name}, the last minutes`),
    element("div", { class: "more" }, more ?? `at most ${number(most)} in the last ${span(values.length * 5)}`));
}

// Of counters that only grow, what came a second from one sample to the next; a daemon that began anew counts from nothing.
function rates(samples, of) {
  return samples.slice(1).map((sample, i) => {
    const seconds = Math.max(1, sample.time - samples[i].time);
    return Math.max(0, of(sample) - of(samples[i])) / seconds;
  });
}

function charts(status, history) {
  const last = (values) => values.length ? values[values.length - 1] : 0;
  const forwarded = rates(history, (sample) => sample.forwarded);
  const dropped = rates(history, (sample) => sample.dropped);
  const active = history.map((sample) => sample.active);
  const { connections } = status;
  const used = connections.active + connections.inactive + connections.persistent;
  const fill = (100 * used / Math.max(1, connections.slots)).toFixed(1);
  at("charts").replaceChildren(
    chart("Packets forwarded a second", forwarded, number(last(forwarded))),
    chart("Active connections", active, number(connections.active),
      `${number(connections.inactive)} inactive; the table is ${fill} % full`),
    chart("Packets dropped a second", dropped, number(last(dropped))));
}

function director(status) {
  const interfaces = status.interfaces.map(({ name, state }) => `${name} (${state})`).join(", ");
  at("director").textContent = `Version ${status.version}, running for ${span(status.running_s)}, on ${interfaces || "no interface"}; `
    + `${number(status.services.used)} services, ${number(status.servers.used)} servers`
    + (status.unreached.length ? `, ${status.unreached.length} of them without a next hop` : "")
    + (status.revision ? `; revision ${status.revision}` : "") + ".";
}

function state(server) {
  const health = { up: "up", down: "down", unknown: "unknown" }[server.health];
  const said = element("span", health ? { class: `health ${health}` } : {}, server.health);
  const because = [server.reason, server.detail].filter((text) => text).join(": ");
  const why = [because, server.warning].filter((text) => text).join("; ");
  return [said, why ? `: ${why}` : ""];
}

function weight(server) {
  if (server.weight_in_force === null) return `out, ${server.weight} when back`;
  return server.weight_in_force === server.weight ? `${server.weight}` : `${server.weight_in_force} of ${server.weight}`;
}

function row(server) {
  const cell = (name, kind, ...children) => element("td", { class: kind, "data-name": name }, ...children);
  const { rates: rate } = server;
  return element("tr", {},
    cell("Server", "server", server.name),
    cell("Method", "", server.method),
    cell("Weight", "", weight(server)),
    cell("Health", "state why", ...state(server)),
    cell("Active", "number", number(server.active)),
    cell("Inactive", "number", number(server.inactive)),
    cell("New/s", "number", number(rate.connections)),
    cell("In", "number", number(rate.in_bytes, "B/s")),
    cell("Out", "number", number(rate.out_bytes, "B/s")));
}

const HEADS = [["Server"], ["Method"], ["Weight"], ["Health"], ["Active", 1], ["Inactive", 1], ["New/s", 1], ["In", 1], ["Out", 1]];

function service(one) {
  const active = one.servers.reduce((sum, server) => sum + server.active, 0);
  const heads = HEADS.map(([name, numeric]) => element("th", { scope: "col", class: numeric ? "number" : "" }, name));
  const sum = `${number(one.rates.connections)} new/s, ${number(active)} active, ${number(one.rates.in_packets)} packets/s, `
    + `${number(one.rates.in_bytes, "B/s")} in, ${number(one.rates.out_bytes, "B/s")} out`;
  const card = element("article", { class: "card service" },
    element("div", { class: "head" },
      element("span", { class: "name" }, one.name),
      element("span", { class: "words" }, one.words),
      element("span", { class: "sum" }, sum)),
    line(lines.get(one.name) ?? [], `New connections a second of ${one.name}, since this page was opened`));
  if (!one.servers.length) card.append(element("p", { class: "nothing" }, "No server."));
  else card.append(element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...one.servers.map(row))));
  return card;
}

function services(all) {
  const known = new Set(all.map((one) => one.name));
  for (const name of lines.keys()) if (!known.has(name)) lines.delete(name);
  for (const one of all) {
    const points = lines.get(one.name) ?? [];
    points.push(one.rates.connections);
    lines.set(one.name, points.slice(-POINTS));
  }
  const wanted = at("filter").value.trim().toLowerCase();
  const fits = (text) => text.toLowerCase().includes(wanted);
  const found = all.filter((one) => !wanted || fits(one.name) || one.servers.some((server) => fits(server.name)));
  const shown = found.slice(0, SHOWN).map(service);
  if (!all.length) shown.push(element("p", { class: "nothing" }, "There is no service."));
  else if (!found.length) shown.push(element("p", { class: "nothing" }, "No service or server is called so."));
  if (found.length > SHOWN) shown.push(element("p", { class: "nothing" }, `And ${number(found.length - SHOWN)} more; the filter finds them.`));
  at("services").replaceChildren(...shown);
}

function reasons(id, now, earlier, seconds) {
  const packets = (label) => earlier?.find((reason) => reason.label === label)?.packets ?? 0;
  const rows = now.map(({ label, sentence, packets: count }) => element("tr", {},
    element("td", { class: "why" }, `${sentence} (${label})`),
    element("td", { class: "number" }, number(count)),
    element("td", { class: "number" }, earlier ? `${number(Math.max(0, count - packets(label)) / seconds)}/s` : "")));
  const table = element("table", { class: "card" }, element("tbody", {}, ...rows));
  at(id).replaceChildren(rows.length ? table : element("p", { class: "nothing" }, "None."));
}

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.ok) return answer.json();
  const why = await answer.json().catch(() => ({ error: answer.statusText }));
  throw Object.assign(new Error(why.error), { status: answer.status });
}

async function look() {
  try {
    const [status, all, history] = await Promise.all(["api/v1/status", "api/v1/services", "api/v1/history"].map(ask));
    const seen = { status, when: performance.now() };
    const seconds = before ? Math.max(1, (seen.when - before.when) / 1000) : 1;
    director(status);
    charts(status, history);
    services(all);
    reasons("drops", status.drops, before?.status.drops, seconds);
    reasons("passes", status.passes, before?.status.passes, seconds);
    before = seen;
    at("trouble").textContent = "";
    at("login").hidden = true;
  } catch (why) {
    at("trouble").textContent = why.status ? why.message : "The director does not answer; what is shown is old.";
    at("login").hidden = why.status !== 401;
  }
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  look();
});

(async () => {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resume) => setTimeout(resume, EVERY_MS));
  }
})();
