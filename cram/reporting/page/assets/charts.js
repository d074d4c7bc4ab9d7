// Charts: uPlot with one axis for the whole page, a legend of buttons, zoom, and keys for who has no mouse.

const places = JSON.parse(document.getElementById("page-places").textContent);
const charts = [...document.querySelectorAll(".chart")].map((figure) => ({
  figure,
  box: figure.querySelector(".plot"),
  spec: JSON.parse(figure.querySelector("script").textContent),
  group: figure.closest("section").id,
  hidden: new Set(state.hidden?.[figure.id]),
  log: undefined,
  zoom: null,
  plot: null,
}));
const PROGRESS = ["seconds", "tokens", "updates", "flops"];
const AXIS_NAMES = { seconds: "time", flops: "FLOPs" };
const SECOND_STEPS = [
  0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400,
  172800, 432000, 864000,
];
let chosenAxis = state.axis;

const isZoomed = () => charts.some((chart) => chart.zoom);
const axisOf = ({ spec }) => spec.axes.find((axis) => axis.name === chosenAxis) ?? spec.axes[0];
const peersOf = (chart) =>
  charts.filter((other) => other.group === chart.group && axisOf(other)?.name === axisOf(chart)?.name);

// Joins series of different places into columns of one length, as uPlot wants them. A point that a series does not have
// stays undefined, which a line passes over; null leaves a gap. Unlike uPlot.join, it keeps several points at one place.
function align(series, axis) {
  const most = new Map(); // how many points a series has at a place, at most
  const own = series.map((one) => places[one.x[axis]] ?? []);
  for (const xs of own) {
    const counts = new Map();
    for (const x of xs) counts.set(x, (counts.get(x) ?? 0) + 1);
    for (const [x, count] of counts) most.set(x, Math.max(most.get(x) ?? 0, count));
  }
  const joined = [];
  const next = new Map();
  for (const x of [...most.keys()].sort((a, b) => a - b)) {
    next.set(x, joined.length);
    for (let i = 0; i < most.get(x); i++) joined.push(x);
  }
  const columns = own.map((xs, number) => {
    const column = new Array(joined.length);
    const free = new Map();
    xs.forEach((x, i) => {
      const at = free.get(x) ?? next.get(x);
      free.set(x, at + 1);
      column[at] = series[number].y[i];
    });
    return column;
  });
  return [joined, ...columns];
}

// On an axis of progress, the charts of a section begin at 0 and end at the same place, so that one can look down them.
function rangeOfX(chart, low, high) {
  const { name } = axisOf(chart);
  if (low === null || low === undefined) return [0, 1];
  if (!PROGRESS.includes(name)) return low === high ? [low - 0.5, high + 0.5] : [low, high];
  const ends = peersOf(chart).flatMap(({ spec }) => spec.series.map((one) => places[one.x[name]]?.at(-1) ?? 0));
  return [Math.min(0, low), Math.max(high, ...ends) || 1];
}

// Round numbers between the ends of a logarithmic axis, of fewer kinds the more powers of ten there are. uPlot would
// count from the lower end, which is not a round number.
function logTicks(low, high) {
  const ratio = high / low;
  const tenths = Array.from({ length: 90 }, (_, i) => 1 + i / 10);
  const kinds = ratio > 1e4 ? [1] : ratio > 30 ? [1, 2, 5] : ratio > 2 ? [1, 1.5, 2, 3, 4, 5, 7] : tenths;
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const kind of kinds) ticks.push(Number(`${kind.toFixed(1)}e${power}`));
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  const each = Math.ceil(inside.length / 8);
  return inside.filter((_, i) => i % each === 0);
}

// Leaves a little room above and below, and shows the levels unless the reader has zoomed.
function rangeOfY(chart, low, high) {
  if (low === null || low === undefined) return [0, 1];
  if (!chart.zoom) {
    const span = high - low || Math.abs(high) || 1;
    for (const { y } of chart.spec.levels) {
      if ((chart.log && y <= 0) || y < low - 2 * span || y > high + 2 * span) continue;
      [low, high] = [Math.min(low, y), Math.max(high, y)];
    }
  }
  if (chart.log) return [low / 1.08, high * 1.08];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

function optionsOf(chart, columns, width) {
  const { spec } = chart;
  const axis = axisOf(chart);
  const time = axis.name === "seconds";
  const line = () => colorOf("grid");
  const look = {
    stroke: () => colorOf("muted"),
    font: FONT,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1, size: 4 },
  };
  const few = columns.slice(1).map((column) => column.filter((y) => y !== null && y !== undefined).length < 3);
  return {
    width,
    height: parseInt(getComputedStyle(chart.box).minHeight),
    legend: { show: false },
    focus: { alpha: 0.25 },
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      focus: { prox: 24 },
      points: { size: 7 },
      bind: { dblclick: () => () => zoomTo(chart, null) },
      sync: {
        key: `${chart.group}:${axis.name}`,
        setSeries: false,
        scales: ["x", null],
        filters: { pub: (type) => ["mousemove", "mouseenter", "mouseleave"].includes(type) },
      },
    },
    scales: {
      x: { time: false, range: (_, low, high) => chart.zoom ?? rangeOfX(chart, low, high) },
      y: { distr: chart.log ? 3 : 1, range: (_, low, high) => rangeOfY(chart, low, high) },
    },
    axes: [
      {
        ...look,
        size: 30,
        space: 70,
        values: (_, ticks) =>
          time ? ticks.map((tick) => formatDuration(tick, ticks.at(-1), ticks[1] - ticks[0])) : formatTicks(ticks),
        ...(time && { incrs: SECOND_STEPS }),
      },
      {
        ...look,
        size: (_, ticks) => 14 + 7.2 * Math.max(3, ...(ticks ?? []).map((tick) => tick.length)),
        values: (_, ticks) =>
          chart.log ? ticks.map((tick) => (tick === null ? "" : formatNumber(tick))) : formatTicks(ticks),
        ...(chart.log && { splits: (_plot, _axis, low, high) => logTicks(low, high), filter: (_, ticks) => ticks }),
      },
    ],
    series: [{}, ...spec.series.map((one, i) => optionsOfSeries(one, few[i], !chart.hidden.has(one.label)))],
    hooks: {
      draw: [(plot) => drawLevels(plot, spec.levels), (plot) => drawMarks(plot, spec.marks, axis.name)],
      setCursor: [(plot) => showValues(chart, plot.cursor.idxs)],
      setSelect: [(plot) => selectRange(chart, plot.select)],
      setSeries: [(_, number, { focus }) => focus !== undefined && showFocus(chart, number)],
    },
  };
}

function optionsOfSeries(series, few, show) {
  const color = () => colorOf(`series-${series.color}`);
  const radius = few || series.style === "points" ? 4 : 3;
  return {
    label: series.label,
    show,
    stroke: color,
    width: series.style === "points" ? 0 : 1.6,
    dash: DASHES[series.dashes],
    points: {
      show: few || series.style !== "line",
      size: 2 * radius,
      fill: color,
      paths: markerPaths(series.marker, radius),
    },
    ...(series.style === "points" && { paths: () => null }),
  };
}

function draw(chart) {
  const width = Math.floor(chart.box.clientWidth);
  if (!width || !chart.spec.axes.length) return;
  chart.plot?.destroy();
  const columns = align(chart.spec.series, axisOf(chart).name);
  const positive = chart.log
    ? columns.map((column, i) => (i ? column.map((y) => (y > 0 ? y : y === undefined ? y : null)) : column))
    : columns;
  chart.plot = new uPlot(optionsOf(chart, positive, width), positive, chart.box);
  chart.figure.querySelector(".x-label").textContent =
    axisOf(chart).name === "seconds" ? axisOf(chart).label.replace(/, s$/, "") : axisOf(chart).label;
}

function zoomTo(chart, range) {
  for (const peer of peersOf(chart)) {
    peer.zoom = range;
    peer.figure.querySelector(".reset").hidden = !range;
    if (!peer.plot) continue;
    peer.plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    const xs = peer.plot.data[0];
    const [min, max] = range ?? rangeOfX(peer, xs[0], xs.at(-1));
    peer.plot.setScale("x", { min, max });
  }
}

function selectRange(chart, { left, width }) {
  if (width < 4) return;
  zoomTo(chart, [chart.plot.posToVal(left, "x"), chart.plot.posToVal(left + width, "x")]);
}

// Writes the values at the cursor into the legend, or the last ones where there is no cursor.
function showValues(chart, indices) {
  const { plot, spec, figure } = chart;
  const at = indices?.[0];
  const gone = at === null || at === undefined || plot.cursor.left < 0;
  figure.querySelectorAll(".legend .last").forEach((place, i) => {
    place.textContent = gone ? place.dataset.last : formatNumber(plot.data[i + 1][indices[i + 1]]);
  });
  const readout = figure.querySelector(".readout");
  if (gone) return void (readout.textContent = "");
  const axis = axisOf(chart);
  const x = plot.data[0][at];
  const near = spec.marks.filter((mark) => Math.abs(plot.valToPos(mark.x[axis.name], "x") - plot.cursor.left) < 6);
  const place =
    axis.name === "seconds" ? formatDuration(x) : `${formatNumber(x)} ${AXIS_NAMES[axis.name] ?? axis.name}`;
  readout.textContent = [`at ${place}`, ...near.map((mark) => mark.label)].join(" · ");
}

function showFocus({ figure }, number) {
  figure.querySelectorAll(".legend li").forEach((entry, i) => entry.classList.toggle("focused", i + 1 === number));
}
