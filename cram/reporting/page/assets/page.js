// The rest of the page: folds, contents, copying, printing, and loading itself again while a run goes on.

const root = document.documentElement;

function startFolds() {
  for (const fold of document.querySelectorAll("details[id]")) {
    const kept = state.folds?.[fold.id];
    if (kept !== undefined) fold.open = kept;
    fold.addEventListener("toggle", () => {
      if (!root.classList.contains("printing")) keepEntry("folds", fold.id, fold.open);
    });
  }
  // A link into a closed fold opens it.
  const open = () => {
    let element = document.getElementById(location.hash.slice(1));
    for (; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
  };
  addEventListener("hashchange", open);
  if (location.hash) open();
}

function startContents() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  let [current] = links.keys(); // stays where no section is in the middle of the window
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
      current = [...links.keys()].find((name) => seen.has(name)) ?? current;
      for (const [name, link] of links) link.toggleAttribute("aria-current", name === current);
    },
    { rootMargin: "-10% 0px -60% 0px" },
  );
  for (const name of links.keys()) observer.observe(document.getElementById(name));
}

function startCopying() {
  if (!navigator.clipboard) return;
  for (const block of document.querySelectorAll(".code")) {
    const button = make("button", { type: "button", class: "tool copy" }, "copy");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 2000);
    });
    block.append(button);
  }
}

function startPrinting() {
  let closed = [];
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const fold of closed) fold.open = true;
    drawAllCharts();
  });
  addEventListener("afterprint", () => {
    for (const fold of closed) fold.open = false;
    // `toggle` is told of after this; what is kept must not change by printing.
    setTimeout(() => {
      root.classList.remove("printing");
      redrawCharts();
    }, 100);
  });
}

// A live page loads itself again, but not while the reader holds a zoom or has asked it to wait, and no longer when
// nothing has written it for so long that what wrote it must have ended.
function startReloading(live) {
  const seconds = Number(live.dataset.seconds);
  const pause = make("input", { type: "checkbox" });
  pause.checked = Boolean(state.paused);
  pause.addEventListener("change", () => keep("paused", pause.checked));
  const next = make("span", { class: "next" });
  live.append(next, make("label", {}, pause, " pause"));
  const due = Date.now() + 1000 * seconds;
  const written = Date.parse(document.getElementById("page-written").dateTime);
  const age = document.getElementById("page-age");
  const stale = Number(live.dataset.stale ?? Infinity);
  const tick = () => {
    const old = Math.max(0, Math.floor((Date.now() - written) / 1000));
    age.textContent = `, ${formatDuration(old)} ago`;
    live.classList.toggle("stale", old > stale);
    if (old > stale) {
      live.textContent =
        "Nothing has written this page for a long time; the run may have ended. It no longer loads itself again.";
      return;
    }
    const held = pause.checked ? "Paused." : isZoomed() ? "Waits while a chart is zoomed." : "";
    const left = Math.max(0, Math.ceil((due - Date.now()) / 1000));
    next.textContent = held || `Loads itself again in ${left} s.`;
    if (!held && left === 0 && !document.hidden) location.reload();
  };
  tick();
  setInterval(tick, 1000);
}

function keepPlace() {
  if (state.place && !location.hash) scrollTo({ top: state.place, behavior: "instant" });
  addEventListener("pagehide", () => keep("place", scrollY));
}

root.classList.add("scripted");
startFolds();
startContents();
startCopying();
startPrinting();
startCharts();
const live = document.getElementById("page-live");
if (live) startReloading(live);
keepPlace();
