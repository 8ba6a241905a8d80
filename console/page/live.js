// A live run: its news come over a WebSocket, and Stop goes out over it and by a request.
"use strict";

const at = (id) => document.getElementById(id);
const MEANINGS = {
  disarmed: "the safe command is in effect; commands are refused",
  run: "commands arrive and are applied",
  hold: "a command is missing: the last one is held",
  safe: "fading to the safe command; commands are refused",
  latched: "the safe command is in effect until an operator arms again",
};
const STOPPED = ["safe", "latched"];
const SILENT_MS = 2500;  // The console sends something each second.
const SAME_PRESS_MS = 1000;
const OLD_S = 1;
const SHOWN_S = 30;

let socket = null;
let opening = null, status = null, slowest = null, ticks = [];
let heardAt = 0, age_s = 0, ended = false, pressed = false, acknowledged = false;
let holding = false, pressedAt = 0;

// -- News ---------------------------------------------------------------------------------------

function connect() {
  socket = new WebSocket(`ws://${location.host}/live`);
  socket.onmessage = (message) => take(JSON.parse(message.data));
  socket.onclose = () => {
    if (!ended) setTimeout(connect, 1000);
    showState();
  };
  socket.onopen = () => {
    ticks = [];  // The console sends all of them again.
    at("log").replaceChildren();
    at("pictures").replaceChildren();
    if (pressed && !acknowledged) sendStop();
  };
}

function take(news) {
  heardAt = performance.now();
  if (news.opening) open(news.opening);
  if (news.checklist) showFacts("checklist", news.checklist.facts);
  if (news.ticks) takeTicks(news.ticks);
  if (news.status) { status = news.status; showStatus(); }
  if (news.slowest) { slowest = news.slowest; showSlowest(); }
  (news.pictures || []).forEach(showPicture);
  (news.events || []).forEach(takeEvent);
  const newest_ns = Math.max(status ? status.at_ns : 0, ticks.length ? ticks.at(-1).at_ns : 0);
  age_s = newest_ns ? (news.now_ns - newest_ns) * 1e-9 : 0;
  showState();
}

function takeTicks(fresh) {
  ticks.push(...fresh);
  const newest = ticks.at(-1);
  ticks = ticks.filter((tick) => newest.at_ns - tick.at_ns <= SHOWN_S * 1e9);
  showActuators(newest);
  requestAnimationFrame(showTicks);
}

function takeEvent(event) {
  const line = document.createElement("li");
  line.className = event.kind || "note";
  const time = document.createElement("time");
  time.textContent = new Date(event.wall_s * 1000).toLocaleTimeString([], { hour12: false });
  line.append(time, ` ${event.sentence}`);
  at("log").prepend(line);
  if (event.kind === "stop") acknowledged = pressed;
  if (event.kind === "end") { ended = true; acknowledged = pressed; }
}

// -- What is shown ------------------------------------------------------------------------------

function open(found) {
  opening = found;
  document.title = `gatort: ${found.title}`;
  at("run-title").textContent = found.title;
  at("hold-box").hidden = !found.held;
  document.body.dataset.kind = found.kind;
  at("facts-title").textContent = found.kind === "run" ? "Cameras" : "The robot";
  at("actuators").replaceChildren(...found.actuators.map(actuatorRow));
}

function showState() {
  const connected = socket && socket.readyState === WebSocket.OPEN;
  const silent = heardAt && performance.now() - heardAt > SILENT_MS;
  let state = status ? status.state : "connecting";
  let meaning = MEANINGS[state] || "waiting for the first message";
  let word = state.toUpperCase();
  if (ended) {
    meaning = "the run has ended, and with it its console";
  } else if (heardAt && (!connected || silent)) {
    state = "lost";
    word = "NO CONNECTION";
    meaning = "the arm may still move: use the robot's own stop";
  } else if (age_s > OLD_S && !STOPPED.includes(state) && state !== "disarmed") {
    state = "lost";
    word = "NO NEWS";
    meaning = `the run has said nothing for ${age_s.toFixed(0)} s: use the robot's own stop`;
  }
  const delivered = state === "disarmed" && acknowledged;
  if (STOPPED.includes(state) || delivered) pressed = acknowledged = false;  // Another may follow.
  at("banner").dataset.state = state;
  if (at("state").textContent !== word) at("state").textContent = word;
  at("meaning").textContent = meaning;
  showStop(state);
}

function showStop(state) {
  const button = at("stop");
  let text = "STOP";
  // At a robot, Stop also forbids arming, and an arm at rest may still be armed.
  const forbidden = status && status.facts.some(([name, value]) => name === "arming" && value === "stopped here");
  const isRobot = opening && opening.kind === "robot";
  if (ended || (STOPPED.includes(state) && !isRobot)) text = "STOPPED";
  else if (forbidden) text = "STOPPED HERE";
  else if (pressed) text = acknowledged ? "STOPPING…" : "STOP IS BEING SENT…";
  button.disabled = ended;
  if (button.textContent !== text) button.textContent = text;
}

function showStatus() {
  const [now, average, worst] = status.rate_hz;
  const [p50, p99, longest] = status.tick_ms;
  const refused = Object.values(status.refused).reduce((sum, count) => sum + count, 0);
  const tiles = [
    ["rate now", `${now.toFixed(1)} Hz`, opening && now < 0.95 * opening.control_hz],
    ["average", `${average.toFixed(2)} Hz`, false],
    ["worst second", `${worst.toFixed(0)} Hz`, opening && worst < 0.95 * opening.control_hz],
    ["tick p50", `${p50.toFixed(1)} ms`, opening && p50 > opening.deadline_ms],
    ["tick p99", `${p99.toFixed(1)} ms`, opening && p99 > opening.deadline_ms],
    ["longest tick", `${longest.toFixed(1)} ms`, opening && longest > opening.budget_ms],
    ["misses", status.misses, status.misses > 0],
    ["refused", refused, refused > 0],
    ["successes", status.task ? status.successes : "–", false],
    ["time", `${status.elapsed_s.toFixed(0)}/${opening ? opening.longest_s : "?"} s`, false],
  ];
  const ofRobot = [["successes", status.successes, false], ["up for", `${status.elapsed_s.toFixed(0)} s`, false]];
  const isRobot = opening && opening.kind === "robot";
  at("tiles").replaceChildren(...(isRobot ? ofRobot : tiles).map(([name, value, isBad]) => {
    const box = tile(name, value);
    box.classList.toggle("bad", Boolean(isBad));
    return box;
  }));
  showCause();
  if (status.facts.length) showFacts("facts", status.facts);
}

function showCause() {
  const faults = [];
  const isPast = status.state === "run" && !ended;  // The next tick sent a command again.
  if (status.cause) faults.push(isPast ? `last refusal: ${status.cause}` : status.cause);
  if (status.recording_fault) faults.push(`recording DEGRADED: ${status.recording_fault}`);
  if (status.dropped) faults.push(`${status.dropped} messages to this console were lost`);
  const text = faults.join("; ");
  at("cause").hidden = !text;
  if (at("cause").textContent !== text) at("cause").textContent = text;
}

function showFacts(id, facts) {
  at(`${id}-box`).hidden = facts.length === 0;
  at(id).replaceChildren(...facts.map(([name, value, attention]) => {
    const row = document.createElement("li");
    row.className = attention ? "attention" : "ok";
    const strong = document.createElement("strong");
    strong.textContent = `${attention ? "!" : "ok"} ${name}`;
    row.append(strong, ` ${value}${attention ? ` – ${attention}` : ""}`);
    return row;
  }));
}

function showPicture({ name, tick, width, height, rgb }) {
  at("facts-box").hidden = false;
  let figure = [...at("pictures").children].find((each) => each.dataset.name === name);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.name = name;
    figure.append(document.createElement("canvas"), document.createElement("figcaption"));
    figure.firstChild.setAttribute("role", "img");
    figure.firstChild.setAttribute("aria-label", `picture of ${name}`);
    at("pictures").append(figure);
  }
  const [canvas, caption] = figure.children;
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height);
  const bytes = atob(rgb);
  for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) {
    for (let channel = 0; channel < 3; channel += 1) {
      pixels.data[to + channel] = bytes.charCodeAt(from + channel);
    }
    pixels.data[to + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  caption.textContent = `${name}, tick ${tick}`;
}

function showTicks() {
  if (!opening || opening.kind === "robot" || !ticks.length) return;
  const first_ns = ticks.at(-1).at_ns - SHOWN_S * 1e9;
  const points = ticks.map((tick) => ({
    s: (tick.at_ns - first_ns) * 1e-9 - SHOWN_S,
    ms: tick.took_ms,
    bad: Boolean(tick.refusal) || tick.took_ms > opening.budget_ms,
  }));
  const limits = [
    { ms: opening.budget_ms, name: "budget" }, { ms: opening.deadline_ms, name: "deadline" },
  ];
  plotTicks(at("ticks"), points, limits, -SHOWN_S, 0);
  const longest = Math.max(...ticks.map((tick) => tick.took_ms));
  const newest = ticks.at(-1);
  at("ticks-text").textContent =
    `newest ${newest.took_ms.toFixed(1)} ms, longest here ${longest.toFixed(1)} ms` +
    (newest.refusal ? `; refused: ${newest.refusal}` : "");
}

function showSlowest() {
  if (!opening || opening.kind === "robot") return;
  const named = opening.stages.map((name, index) => [name, slowest.stages_ms[index]]);
  const rows = named.filter(([, ms]) => ms >= 0.05);
  const widest = Math.max(...rows.map(([, ms]) => ms), 0.1);
  at("slowest-text").textContent =
    `tick ${slowest.number}: ${slowest.took_ms.toFixed(1)} ms of ${opening.budget_ms} ms, ` +
    `woke ${slowest.lateness_ms.toFixed(2)} ms late`;
  at("stages").replaceChildren(
    ...rows.map(([name, ms]) => barRow(name, ms / widest, [ms.toFixed(2)])));
}

function actuatorRow(actuator) {
  const row = barRow(actuator.name, 0, ["–", "–", "–"]);
  const mark = document.createElement("i");
  row.querySelector(".bar div").append(mark);
  const unit = document.createElement("small");
  unit.textContent = ` ${actuator.unit}`;
  row.firstChild.append(unit);
  return row;
}

function showActuators(tick) {
  if (!opening) return;
  [...at("actuators").children].forEach((row, index) => {
    const { low, high } = opening.actuators[index];
    const share = (value) => Math.max(0, Math.min(1, (value - low) / (high - low)));
    const values = [tick.asked, tick.sent, tick.applied].map((each) => each[index]);
    values.forEach((value, place) => {
      row.children[place + 2].textContent = Number.isFinite(value) ? value.toFixed(2) : "–";
    });
    const [bar, mark] = row.querySelector(".bar div").children;
    const zero = share(0), applied = share(values[2] ?? 0);
    bar.style.marginLeft = `${Math.min(zero, applied) * 100}%`;
    bar.style.width = `${Math.abs(applied - zero) * 100}%`;
    mark.style.left = `${share(values[0] ?? 0) * 100}%`;
    mark.hidden = !Number.isFinite(values[0]);
  });
}

// -- What a person does -------------------------------------------------------------------------

function stop() {
  const now = performance.now();
  if (pressed && now - pressedAt < SAME_PRESS_MS) return;  // Its release, or its repetition.
  pressed = true;
  acknowledged = false;
  pressedAt = now;
  sendStop();
  showState();
}

// Over both ways: the first that arrives stops the run, and the second does nothing.
function sendStop() {
  if (ended || acknowledged || !pressed) return;
  if (socket && socket.readyState === WebSocket.OPEN) socket.send("stop");
  fetch("/stop", { method: "POST" }).catch(() => {});
  setTimeout(sendStop, 300);
}

function toggleHold() {
  holding = !holding;
  at("hold").setAttribute("aria-pressed", String(holding));
  at("hold").textContent = holding ? "You hold the run" : "Hold the run";
  at("hold-note").textContent = holding
    ? "The run stops 2 s after this page is hidden, closed or cut off, and when you let go."
    : "The run goes on only while a page holds it.";
  beat();
}

function beat() {
  const seen = document.visibilityState === "visible";
  if (holding && seen && socket.readyState === WebSocket.OPEN) socket.send("hold");
}

async function invite() {
  const answer = await fetch("/invite", { method: "POST" });
  at("link").textContent = `Works once: ${await answer.text()}`;
}

at("stop").addEventListener("pointerdown", stop);  // At the press: a click comes only at the release.
at("stop-form").addEventListener("submit", (event) => { event.preventDefault(); stop(); });
at("hold").addEventListener("click", toggleHold);
at("invite").addEventListener("click", invite);
document.addEventListener("keydown", (event) => {
  const onButton = event.target.closest("button, a, summary");
  if (event.key === "Escape" || (event.key === " " && !onButton)) {
    event.preventDefault();
    stop();
  }
});
window.addEventListener("resize", showTicks);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTicks);
setInterval(beat, 500);
setInterval(showState, 500);
connect();
