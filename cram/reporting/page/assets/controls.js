// What a reader can do with charts: choose the axis, hide curves, make an axis logarithmic, use the keyboard.

function drawSwatch(swatch) {
  const { color, dashes, marker, style } = swatch.dataset;
  const line = swatch.querySelector("path");
  line.setAttribute("stroke-dasharray", DASHES[dashes].join(" "));
  if (style === "points") line.remove();
  if (style === "line") return;
  const corners = MARKERS[marker].map(([x, y]) => `${13 + 4 * x},${6 + 4 * y}`).join(" ");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", corners ? "polygon" : "circle");
  const attributes = corners ? { points: corners } : { cx: 13, cy: 6, r: 4 };
  for (const [name, value] of Object.entries({ ...attributes, fill: `var(--series-${color})` }))
    shape.setAttribute(name, value);
  swatch.append(shape);
}

// Makes each key of the legend a button that hides and shows its curve.
function startLegend(chart) {
  chart.figure.querySelectorAll(".legend li").forEach((entry, i) => {
    const { label } = chart.spec.series[i];
    const last = entry.querySelector(".last");
    last.dataset.last = last.textContent;
    drawSwatch(entry.querySelector(".swatch"));
    const shown = !chart.hidden.has(label);
    const button = make(
      "button",
      { type: "button", class: "key", "aria-pressed": shown, title: "hide or show" },
      ...entry.firstElementChild.childNodes,
    );
    entry.replaceChildren(button);
    button.addEventListener("click", () => {
      const hide = !chart.hidden.delete(label);
      if (hide) chart.hidden.add(label);
      button.setAttribute("aria-pressed", !hide);
      keepEntry("hidden", chart.figure.id, [...chart.hidden]);
      chart.plot?.setSeries(i + 1, { show: !hide });
    });
    const focus = (number) => () => chart.plot?.setSeries(number, { focus: number !== null });
    button.addEventListener("pointerenter", focus(i + 1));
    button.addEventListener("pointerleave", focus(null));
  });
}

function startTools(chart) {
  const { spec, figure } = chart;
  const tools = figure.querySelector(".tools");
  const reset = make("button", { type: "button", class: "tool reset", hidden: "" }, "whole range");
  reset.addEventListener("click", () => zoomTo(chart, null));
  tools.append(reset);
  chart.log = state.logs?.[figure.id] ?? spec.log;
  if (!spec.series.some(({ y }) => y.some((value) => value > 0))) return void (chart.log = false);
  const button = make(
    "button",
    { type: "button", class: "tool", "aria-pressed": chart.log, title: "logarithmic vertical axis" },
    "log",
  );
  button.addEventListener("click", () => {
    chart.log = !chart.log;
    button.setAttribute("aria-pressed", chart.log);
    keepEntry("logs", figure.id, chart.log);
    draw(chart);
  });
  tools.append(button);
}

function moveCursor(chart, index) {
  const { plot } = chart;
  const xs = plot.data[0];
  const at = Math.max(0, Math.min(xs.length - 1, index));
  plot.setCursor({ left: plot.valToPos(xs[at], "x"), top: plot.bbox.height / devicePixelRatio / 2 });
  chart.cursor = at;
}

// Makes the visible part narrower or wider, around the cursor.
function scaleZoom(chart, factor) {
  const { plot, cursor } = chart;
  const xs = plot.data[0];
  const { min, max } = plot.scales.x;
  const [first, last] = rangeOfX(chart, xs[0], xs.at(-1));
  const middle = cursor === undefined ? (min + max) / 2 : xs[cursor];
  const low = Math.max(first, middle - (middle - min) * factor);
  const high = Math.min(last, middle + (max - middle) * factor);
  if (high > low) zoomTo(chart, low <= first && high >= last ? null : [low, high]);
}

function startKeys(chart) {
  const { box } = chart;
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.setAttribute("aria-roledescription", "chart; arrows move the cursor, plus and minus zoom, Escape shows all");
  const step = (event) => (event.shiftKey ? 10 : 1);
  const now = () => chart.cursor ?? -1;
  const keys = {
    ArrowRight: (event) => moveCursor(chart, now() + step(event)),
    ArrowLeft: (event) => moveCursor(chart, now() - step(event)),
    Home: () => moveCursor(chart, 0),
    End: () => moveCursor(chart, Infinity),
    "+": () => scaleZoom(chart, 0.5),
    "=": () => scaleZoom(chart, 0.5),
    "-": () => scaleZoom(chart, 2),
    Escape: () => zoomTo(chart, null),
  };
  box.addEventListener("keydown", (event) => {
    if (!keys[event.key] || !chart.plot?.data[0].length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key](event);
  });
  box.addEventListener("blur", () => chart.plot?.setCursor({ left: -10, top: -10 }));
}

// One choice for all charts, among the axes that at least one of them shares.
function startAxisChoice() {
  const names = [
    ...new Set(
      charts.filter(({ spec }) => spec.axes.length > 1).flatMap(({ spec }) => spec.axes.map((axis) => axis.name)),
    ),
  ];
  if (names.length < 2) return;
  if (!names.includes(chosenAxis)) [chosenAxis] = names;
  const field = make("fieldset", {}, make("legend", {}, "Charts over"));
  for (const name of names) {
    const input = make("input", { type: "radio", name: "axis", value: name });
    input.checked = name === chosenAxis;
    input.addEventListener("change", () => {
      chosenAxis = name;
      keep("axis", name);
      for (const chart of charts) {
        chart.zoom = null;
        chart.figure.querySelector(".reset").hidden = true;
        chart.cursor = undefined;
      }
      redrawCharts();
    });
    field.append(make("label", {}, input, make("span", {}, AXIS_NAMES[name] ?? name)));
  }
  const place = document.getElementById("page-axis");
  place.append(field);
  place.hidden = false;
}

function redrawCharts() {
  for (const chart of charts) if (chart.plot) draw(chart);
}

function drawAllCharts() {
  charts.forEach(draw);
}

function startCharts() {
  startAxisChoice();
  for (const chart of charts) {
    startTools(chart);
    startLegend(chart);
    startKeys(chart);
  }
  // A chart is drawn when it comes near, and again when its width changes. In a closed fold it has no width.
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const chart = charts.find(({ box }) => box === target);
      if (chart.plot && chart.box.clientWidth && chart.plot.width !== Math.floor(chart.box.clientWidth)) draw(chart);
    }
  });
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const chart = charts.find(({ box }) => box === target);
        if (isIntersecting && !chart.plot) draw(chart);
      }
    },
    { rootMargin: "600px" },
  );
  for (const { box } of charts) {
    sizes.observe(box);
    near.observe(box);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    charts.forEach(({ plot }) => plot?.redraw()),
  );
}
