// Finished runs: a list of files, and the figures and plots of the chosen one.
"use strict";

const at = (id) => document.getElementById(id);
let rows = [];
let drawn = null;

async function list() {
  rows = await (await fetch("/runs.json")).json();
  at("said").textContent = rows.length
    ? `${rows.length} files; choose one`
    : "no report, recording or picture of gatort lies in this folder";
  at("rows").replaceChildren(...rows.map(listRow));
  choose();
}

function listRow(row) {
  const line = document.createElement("tr");
  line.dataset.name = row.name;
  const head = document.createElement("th");
  head.scope = "row";
  const link = document.createElement("a");
  link.href = `#${encodeURIComponent(row.name)}`;
  link.textContent = row.name;
  head.append(link);
  line.append(head, textCell(row.command || row.kind), textCell(row.date.replace("T", " ").slice(0, 19)));
  line.append(textCell(row.headline), numberCell(Math.ceil(row.bytes / 1000)));
  return line;
}

function textCell(text) {
  const cell = document.createElement("td");
  cell.textContent = text;
  return cell;
}

async function choose() {
  const name = decodeURIComponent(location.hash.slice(1));
  const row = rows.find((each) => each.name === name);
  for (const line of at("rows").children) line.classList.toggle("chosen", line.dataset.name === name);
  at("run").hidden = !row;
  if (!row) return;
  clear(name);
  if (row.kind === "picture") showPicture(name);
  else await { report: showReport, recording: showRecording }[row.kind](name);
  at("run-title").focus();
}

function clear(name) {
  drawn = null;
  at("run-title").textContent = name;
  for (const id of ["tiles", "stages", "log", "pictures"]) at(id).replaceChildren();
  at("ticks-box").hidden = at("stages-box").hidden = true;
}

async function showReport(name) {
  const report = await (await fetch(`/report/${encodeURIComponent(name)}`)).json();
  const plain = Object.entries(report).filter(([, value]) => value === null || typeof value !== "object");
  tiles(plain.map(([key, value]) => [key.replaceAll("_", " "), shown(value)]));
  if (report.rate_hz) addTiles(Object.entries(report.rate_hz).map(([key, value]) => [key.replaceAll("_", " "), shown(value)]));
  if (report.wilson_95) addTiles([["95 % interval", report.wilson_95.map((each) => `${(100 * each).toFixed(0)} %`).join(" – ")]]);
  const latency_ms = report.latency_ms || {};
  showStages("p50" in latency_ms ? { tick: latency_ms } : latency_ms, report.budget_ms);
  if (report.durations_ms) {
    const points = report.durations_ms.map((ms, index) => ({ s: index * 0.05, ms, bad: ms > report.budget_ms }));
    plot(points, report.budget_ms, report.deadline_ms);
  }
  lines(Object.entries(report.refused && typeof report.refused === "object" ? report.refused : {})
    .map(([reason, count]) => `${count} refused: ${reason}`));
  const recording = report.recording && report.recording.file.split("/").at(-1);
  if (rows.some((row) => row.name === recording)) await addRecording(recording);
  const stem = name.replace(/\.json$/, ".png");
  if (rows.some((row) => row.name === stem)) showPicture(stem);
}

async function showRecording(name) {
  const found = await addRecording(name);
  if (!found) return;
  tiles([
    ["result", found.result || "unknown"], ["robot", found.robot], ["policy", found.policy || "–"],
    ["seconds", found.seconds.toFixed(1)], ["ticks", found.ticks], ["misses", found.misses],
    ["complete", found.incomplete ? `no: ${found.incomplete}` : "yes"],
  ]);
}

async function addRecording(name) {
  const answer = await fetch(`/recording/${encodeURIComponent(name)}`);
  if (!answer.ok) { lines([await answer.text()]); return null; }
  const found = await answer.json();
  if (found.points.length) {
    const points = found.points.map(([s, ms, bad]) => ({ s, ms, bad: bad || ms > found.budget_ms }));
    plot(points, found.budget_ms, found.deadline_ms);
  }
  lines([
    ...found.states.map(([s, state]) => `${s.toFixed(2)} s: ${state}`),
    ...found.faults.map(([s, fault]) => `${s.toFixed(2)} s: ${fault}`),
  ]);
  return found;
}

function plot(points, budget_ms, deadline_ms) {
  drawn = { points, limits: [{ ms: budget_ms, name: "budget" }, { ms: deadline_ms, name: "deadline" }] };
  at("ticks-box").hidden = false;
  const longest = Math.max(...points.map((point) => point.ms));
  at("ticks-text").textContent =
    `${points.length} bars, longest ${longest.toFixed(1)} ms, budget ${budget_ms} ms`;
  redraw();
}

function redraw() {
  if (drawn) plotTicks(at("ticks"), drawn.points, drawn.limits, 0, drawn.points.at(-1).s + 0.05);
}

function showStages(latency_ms, budget_ms) {
  at("stages-box").hidden = Object.keys(latency_ms).length === 0;
  const widest = Math.max(...Object.values(latency_ms).map((each) => each.p99));
  at("stages").replaceChildren(...Object.entries(latency_ms).map(([name, each]) => {
    const row = barRow(name, each.p99 / widest, [each.p50, each.p99, each.max].map((ms) => ms.toFixed(2)));
    if (each.max > budget_ms) row.lastChild.className += " alarm";
    return row;
  }));
}

function showPicture(name) {
  const image = document.createElement("img");
  image.src = `/picture/${encodeURIComponent(name)}`;
  image.alt = name;
  at("pictures").append(image);
}

function shown(value) {
  if (value === null || value === "") return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);
}

function tiles(pairs) {
  at("tiles").replaceChildren();
  addTiles(pairs);
}

function addTiles(pairs) {
  for (const [name, value] of pairs) {
    const box = tile(name, value);
    box.classList.toggle("long", String(value).length > 14);
    at("tiles").append(box);
  }
}

function lines(texts) {
  at("log").append(...texts.map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
}

window.addEventListener("hashchange", choose);
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
list().catch((error) => { at("said").textContent = `the console does not answer (${error.message})`; });
