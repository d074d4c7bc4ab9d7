// What charts draw on their canvas beside uPlot's lines: markers, events and levels.

// By the number of a series: a whole line, what `dashed` asks for, then one for each further colour. Long dashes, so that
// noisy curves stay curves.
const DASHES = [[], [5, 4], [16, 3], [9, 3], [4, 2], [16, 3, 3, 3], [9, 3, 2, 3], [2, 2], [12, 5]];

// Corners of the markers, in units of their radius; a circle has none.
const MARKERS = [
  [],
  [
    [-0.9, -0.9],
    [0.9, -0.9],
    [0.9, 0.9],
    [-0.9, 0.9],
  ],
  [
    [0, -1.2],
    [1.1, 0.8],
    [-1.1, 0.8],
  ],
  [
    [0, -1.3],
    [1.1, 0],
    [0, 1.3],
    [-1.1, 0],
  ],
  [
    [0, 1.2],
    [1.1, -0.8],
    [-1.1, -0.8],
  ],
  [
    [-1.2, -0.4],
    [-0.4, -0.4],
    [-0.4, -1.2],
    [0.4, -1.2],
    [0.4, -0.4],
    [1.2, -0.4],
    [1.2, 0.4],
    [0.4, 0.4],
    [0.4, 1.2],
    [-0.4, 1.2],
    [-0.4, 0.4],
    [-1.2, 0.4],
  ],
  [
    [-1.3, -0.6],
    [1.3, -0.6],
    [1.3, 0.6],
    [-1.3, 0.6],
  ],
  [
    [0, -1.3],
    [1.2, -0.4],
    [0.8, 1.1],
    [-0.8, 1.1],
    [-1.2, -0.4],
  ],
];

const colorOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const FONT = "12px system-ui, sans-serif";
const onCanvas = (pixels) => pixels * devicePixelRatio;

// Adds a marker to a path, or, of radius and place of the swatch in a legend, to the text of an SVG path.
function traceMarker(path, number, x, y, radius) {
  const corners = MARKERS[number % MARKERS.length];
  if (!corners.length) {
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
    return;
  }
  corners.forEach(([dx, dy], i) => path[i ? "lineTo" : "moveTo"](x + dx * radius, y + dy * radius));
  path.closePath();
}

// A function as uPlot's `points.paths` wants it.
function markerPaths(number, radius) {
  return (plot, index, first, last, chosen) => {
    const [xs, ys] = [plot.data[0], plot.data[index]];
    const path = new Path2D();
    const add = (i) => {
      if (ys[i] === null || ys[i] === undefined) return;
      const [x, y] = [plot.valToPos(xs[i], "x", true), plot.valToPos(ys[i], "y", true)];
      traceMarker(path, number, x, y, onCanvas(radius));
    };
    if (chosen) chosen.forEach(add);
    else for (let i = first; i <= last; i++) add(i);
    return { fill: path, stroke: path };
  };
}

function drawLine(context, x1, y1, x2, y2, color, dash) {
  context.beginPath();
  context.strokeStyle = color;
  context.lineWidth = onCanvas(1);
  context.setLineDash(dash.map(onCanvas));
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

// Text on a background of the page's colour, so that it can be read over curves.
function drawLabel(context, text, x, y, color) {
  const height = onCanvas(15);
  context.globalAlpha = 0.8;
  context.fillStyle = colorOf("paper");
  context.fillRect(x - onCanvas(2), y, context.measureText(text).width + onCanvas(4), height);
  context.globalAlpha = 1;
  context.fillStyle = color;
  context.fillText(text, x, y + height / 2);
}

function prepare(context) {
  context.save();
  context.font = FONT.replace("12", String(onCanvas(11.5)));
  context.textBaseline = "middle";
  context.textAlign = "left";
}

// Events of one label that stand closer together than the label is wide share it, with their number.
function groupMarks(context, placed) {
  const groups = [];
  for (const mark of placed) {
    const group = groups.findLast(({ label }) => label === mark.label);
    if (group && mark.at - group.last < context.measureText(mark.label).width + onCanvas(12)) {
      group.last = mark.at;
      group.count += 1;
    } else groups.push({ ...mark, last: mark.at, count: 1 });
  }
  return groups.map((group) => ({ ...group, label: group.count > 1 ? `${group.label} × ${group.count}` : group.label }));
}

// Vertical lines with labels in up to three rows at the top; a label for which there is no room is left out, and stands
// below the chart when the cursor is near its line.
function drawMarks(plot, marks, axis) {
  const { ctx: context } = plot;
  const { left, top, width, height } = plot.bbox;
  prepare(context);
  const ends = [left, left, left];
  const placed = marks
    .filter((mark) => mark.x[axis] !== undefined)
    .map((mark) => ({ ...mark, at: Math.round(plot.valToPos(mark.x[axis], "x", true)) }))
    .filter(({ at }) => at >= left && at <= left + width)
    .sort((a, b) => a.at - b.at);
  for (const { at, tone } of placed) {
    const color = colorOf(tone === "plain" || tone === "note" ? "muted" : tone);
    drawLine(context, at, top, at, top + height, color, tone === "bad" ? [] : [3, 3]);
  }
  for (const { at, tone, label } of groupMarks(context, placed)) {
    const size = context.measureText(label).width + onCanvas(8);
    const start = at + size > left + width ? at - size : at + onCanvas(4);
    const row = ends.findIndex((end) => start >= end);
    if (row < 0 || start < left) continue;
    ends[row] = start + size;
    const color = colorOf(tone === "plain" || tone === "note" ? "muted" : tone);
    drawLabel(context, label, start, top + onCanvas(2 + 16 * row), color);
  }
  context.restore();
}

// How many points of all curves lie in a box of the canvas.
function countPoints(plot, left, top, width, height) {
  const inside = (pixel, start, size) => pixel >= start && pixel <= start + size;
  const near = plot.data[0].flatMap((x, i) => (inside(plot.valToPos(x, "x", true), left, width) ? [i] : []));
  return plot.data
    .slice(1)
    .flatMap((ys) => near.filter((i) => Number.isFinite(ys[i]) && inside(plot.valToPos(ys[i], "y", true), top, height)))
    .length;
}

// Horizontal lines with labels, at the end where they hide fewer points.
function drawLevels(plot, levels) {
  const { ctx: context } = plot;
  const { left, top, width, height } = plot.bbox;
  prepare(context);
  for (const { label, y } of levels) {
    const at = Math.round(plot.valToPos(y, "y", true));
    if (!(at >= top && at <= top + height)) continue;
    drawLine(context, left, at, left + width, at, colorOf("muted"), [6, 4]);
    const text = /\d$/.test(label) ? label : `${label} ${formatNumber(y)}`;
    const size = context.measureText(text).width;
    const row = at - onCanvas(17) > top ? at - onCanvas(17) : at + onCanvas(2);
    const ends = [left + width - size - onCanvas(4), left + onCanvas(4)];
    const [right, other] = ends.map((end) => countPoints(plot, end, row, size, onCanvas(15)));
    drawLabel(context, text, ends[right > other ? 1 : 0], row, colorOf("muted"));
  }
  context.restore();
}
