// Numbers as a person reads them, with a real minus sign.

const MINUS = "\u2212";
const UNKNOWN = "\u2013";
const signed = (text) => text.replace("-", MINUS);

function number(value, digits = 4) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e9) return signed(value.toExponential(1)).replace("e+", "e").replace("e-", "e" + MINUS);
  const decimals = Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size))));
  return signed(value.toLocaleString("en-US", { maximumFractionDigits: decimals }));
}

function compact(value) {
  if (value === null || value === undefined) return UNKNOWN;
  for (const [scale, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= scale) return `${number(value / scale, 3)} ${unit}`;
  }
  return number(value, 3);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 120) return `${number(seconds, 3)} s`;
  return seconds < 7200 ? `${number(seconds / 60, 3)} min` : `${number(seconds / 3600, 3)} h`;
}

const percent = (share) => `${number(100 * share, 2)} %`;
const interval = (low, high) => (low === null || high === null ? "" : `[${number(low)}, ${number(high)}]`);
const plural = (count, noun) => `${number(count, 9)} ${noun}${count === 1 ? "" : "s"}`;

function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index += 1) ticks.push(index * step);
  return ticks;
}
