// Parts of both pages: small plots on a canvas in the colours of the page, rows with bars, and tiles.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Return a canvas's context, sized for the screen's pixels, and its size in CSS pixels.
function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  return { pen, width, height };
}

// Draw durations over time as bars, with lines at the limits.
//   points: [{s, ms, bad}], limits: [{ms, name}], from_s and to_s: the shown time.
function plotTicks(canvas, points, limits, from_s, to_s) {
  const { pen, width, height } = prepared(canvas);
  const left = 34, bottom = 18, top = 8;
  const budget_ms = Math.max(...limits.map((limit) => limit.ms));
  const highest = Math.max(budget_ms * 1.15, ...points.map((point) => point.ms * 1.05));
  const x = (s) => left + ((s - from_s) / (to_s - from_s || 1)) * (width - left);
  const y = (ms) => top + (1 - ms / highest) * (height - top - bottom);

  drawGrid(pen, width, height, left, bottom, highest, y);
  const good = colour("good"), bad = colour("bad");
  const widest = Math.max(1, ((width - left) / (to_s - from_s)) * 0.055);
  points.forEach((point, index) => {
    const begin = Math.round(x(point.s));
    const next = index + 1 < points.length ? Math.round(x(points[index + 1].s)) : begin + widest;
    pen.fillStyle = point.bad ? bad : good;
    pen.fillRect(begin, y(point.ms), Math.max(1, Math.min(next - begin, widest + 1)), y(0) - y(point.ms));
  });

  for (const limit of limits) {
    pen.strokeStyle = pen.fillStyle = limit.ms === budget_ms ? colour("bad") : colour("warn");
    pen.setLineDash([6, 4]);
    pen.beginPath();
    pen.moveTo(left, y(limit.ms));
    pen.lineTo(width, y(limit.ms));
    pen.stroke();
    pen.setLineDash([]);
    pen.textAlign = "left";
    pen.fillText(`${limit.name} ${limit.ms} ms`, left + 6, y(limit.ms) - 4);
  }

  pen.fillStyle = colour("dim");
  pen.textAlign = "left";
  pen.fillText(from_s < 0 ? `${(-from_s).toFixed(0)} s ago` : `${from_s.toFixed(0)} s`, left, height - 4);
  pen.textAlign = "right";
  pen.fillText(to_s ? `${to_s.toFixed(0)} s` : "now", width, height - 4);
}

function drawGrid(pen, width, height, left, bottom, highest, y) {
  const step = [5, 10, 20, 50, 100, 200, 500, 1000, 5000].find((each) => highest / each <= 6) || 10000;
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("dim");
  pen.textAlign = "right";
  for (let ms = 0; ms <= highest; ms += step) {
    pen.beginPath();
    pen.moveTo(left, Math.round(y(ms)) + 0.5);
    pen.lineTo(width, Math.round(y(ms)) + 0.5);
    pen.stroke();
    pen.fillText(`${ms}`, left - 6, y(ms) + 4);
  }
}

// Return a table's row with a bar: its name, the bar, and further cells.
function barRow(name, share, texts) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  const cell = document.createElement("td");
  cell.className = "bar";
  const track = document.createElement("div");
  const bar = document.createElement("span");
  bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  track.append(bar);
  cell.append(track);
  row.append(head, cell, ...texts.map(numberCell));
  return row;
}

function numberCell(text) {
  const cell = document.createElement("td");
  cell.className = "number";
  cell.textContent = text;
  return cell;
}

// Return a tile: a name and its value.
function tile(name, value) {
  const box = document.createElement("div");
  const term = document.createElement("dt");
  term.textContent = name;
  const found = document.createElement("dd");
  found.textContent = value;
  box.append(term, found);
  return box;
}
