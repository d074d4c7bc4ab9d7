// What the reader has chosen, kept while the page loads itself again: the axis, open folds, the order of tables, hidden
// curves and the place on the page. A browser may refuse to keep it for files; then it is forgotten, and nothing else.

const STATE_NAME = `cram-report:${location.pathname}`;

function readState() {
  try {
    return JSON.parse(sessionStorage.getItem(STATE_NAME)) ?? {};
  } catch {
    return {};
  }
}

const state = readState();

function keep(name, value) {
  state[name] = value;
  try {
    sessionStorage.setItem(STATE_NAME, JSON.stringify(state));
  } catch {
    // Refused, or full.
  }
}

// Keeps one entry of a group, such as the order of one table.
function keepEntry(group, name, value) {
  keep(group, { ...state[group], [name]: value });
}

// Makes an element: make("button", { type: "button" }, "text").
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
