// Numbers as text, with the same digits as numbers.py.

function formatNumber(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) {
    const [mantissa, exponent] = value.toExponential(3).split("e");
    return `${Number(mantissa)}e${Number(exponent)}`;
  }
  if (size < 1000) return String(Number(value.toPrecision(4)));
  if (size < 1e5) return Math.round(value).toLocaleString("en-US");
  const [unit, suffix] = [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ].find(([least]) => size >= least);
  return `${Number((value / unit).toPrecision(4))}${suffix}`;
}

// 5400 -> "90 min". One unit, the largest of which there are at least two; of several times, such as the ticks of an axis,
// that of the longest one.
function formatDuration(seconds, longest = seconds) {
  const size = Math.abs(longest);
  const [unit, name] = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ].find(([unit]) => size >= 2 * unit) ?? [1, "s"];
  return `${Number((seconds / unit).toPrecision(4))} ${name}`;
}
