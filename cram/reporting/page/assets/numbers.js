// Numbers as text, with the same digits as numbers.py.

const UNITS = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

function formatNumber(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) {
    const [mantissa, exponent] = value.toExponential(3).split("e");
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  if (size < 1000) return String(Number(value.toPrecision(4)));
  if (size < 1e5) return Math.round(value).toLocaleString("en-US");
  const [unit, suffix] = UNITS.find(([least]) => size >= least);
  return `${Number((value / unit).toPrecision(4))}${suffix}`;
}

// Decimals that tell numbers apart which are so far from each other, and 2.5 from 3.
const decimalsOf = (step) => Math.min(Math.max(0, Math.ceil(-Math.log10(step)) + 1), 12);

// The ticks of a linear axis: all in one unit, and no two with the same text.
function formatTicks(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  if (ticks.length < 2 || largest < 1e-3 || largest >= 1e15) return ticks.map(formatNumber);
  const [unit, suffix] = (largest >= 1e5 && UNITS.find(([least]) => largest >= least)) || [1, ""];
  const decimals = decimalsOf((ticks[1] - ticks[0]) / unit);
  const write = (tick) => (tick / unit).toLocaleString("en-US", { maximumFractionDigits: decimals });
  return ticks.map((tick) => (tick === 0 ? "0" : `${write(tick)}${suffix}`));
}

// 5400 -> "90 min". One unit, the largest of which there are at least two; of several times, such as the ticks of an axis,
// that of the longest one, with the decimals that their step needs.
function formatDuration(seconds, longest = seconds, step = null) {
  const size = Math.abs(longest);
  const [unit, name] = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ].find(([unit]) => size >= 2 * unit) ?? [1, "s"];
  const value = seconds / unit;
  return `${Number(step ? value.toFixed(decimalsOf(step / unit)) : value.toPrecision(4))} ${name}`;
}
