// A chart of lines over one of several axes, with a readout that follows the pointer.

const AXES = {
  iteration: { label: "iteration", format: (value) => number(value, 6) },
  env_steps: { label: "environment steps", format: compact },
  seconds: { label: "wall-clock seconds, compilation included", format: compact },
};
const MARGIN = { left: 70, right: 12, top: 12, bottom: 44 };

const finite = (values) => values.filter((value) => value !== null && value !== undefined);

function chart({ series, references = [], label }) {
  const axes = Object.keys(AXES).filter((axis) => series.some((line) => Math.max(...finite(line[axis]), 0) > 0));
  let axis = axes[0];
  const plot = svg("svg", { role: "img", "aria-label": label });
  const tip = element("div", { class: "tip", hidden: "" });
  const holder = element("div", { class: "chart" }, plot, tip);
  const draw = () => drawChart(plot, tip, holder.clientWidth, { series, references, label, axis });
  new ResizeObserver(draw).observe(holder);
  const choices = axes.map((name) => [name, AXES[name].label.split(",")[0]]);
  const chosen = axes.length > 1 ? choice("horizontal axis", choices, axis, (name) => { axis = name; draw(); }) : null;
  return element("div", { class: "panel" }, chosen, holder, legend(series, references));
}

function legend(series, references) {
  return element("div", { class: "legend" },
    series.map((line) => element("span", {}, key(line.color), line.label)),
    references.map(({ name, value }) => element("span", {}, element("span", { class: "dash" }), `${name} ${number(value)}`)));
}

function scales(width, height, { series, references, axis }) {
  const x = finite(series.flatMap((line) => line[axis]));
  const y = finite(series.flatMap((line) => [...line.values, ...(line.low || []), ...(line.high || [])]));
  y.push(...references.map(({ value }) => value));
  const right = Math.max(...x, 0) || 1;
  const [low, high] = [Math.min(...y), Math.max(...y)];
  const pad = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  const [bottom, top] = [low - pad, high + pad];
  return {
    right, bottom, top,
    x: (value) => MARGIN.left + (value / right) * (width - MARGIN.left - MARGIN.right),
    y: (value) => MARGIN.top + ((top - value) / (top - bottom)) * (height - MARGIN.top - MARGIN.bottom),
  };
}

function drawChart(plot, tip, width, chosen) {
  if (!width) return;
  const height = Math.round(Math.max(240, Math.min(380, width * 0.42)));
  const at = scales(width, height, chosen);
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("height", height);
  const ground = height - MARGIN.bottom;
  const rows = niceTicks(at.bottom, at.top, height / 60).map((value) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at.y(value), y2: at.y(value) }),
    svg("text", { x: MARGIN.left - 8, y: at.y(value) + 4, "text-anchor": "end" }, number(value, 4)),
  ]);
  const columns = niceTicks(0, at.right, width / 110).map((value) =>
    svg("text", { x: at.x(value), y: ground + 18, "text-anchor": "middle" }, AXES[chosen.axis].format(value)));
  const words = [
    svg("text", { class: "axis-label", x: (MARGIN.left + width) / 2, y: height - 6, "text-anchor": "middle" }, AXES[chosen.axis].label),
    svg("text", { class: "axis-label", "text-anchor": "middle", transform: `translate(13 ${(MARGIN.top + ground) / 2}) rotate(-90)` }, chosen.label),
  ];
  const dashes = chosen.references.map(({ value }) =>
    svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at.y(value), y2: at.y(value), stroke: "var(--muted)", "stroke-dasharray": "6 4" }));
  const cross = svg("line", { class: "cross", y1: MARGIN.top, y2: ground, visibility: "hidden" });
  plot.replaceChildren(...rows.flat(), ...columns, ...words, ...dashes,
    ...[...chosen.series].reverse().flatMap((line) => drawLine(line, chosen.axis, at)), cross);
  plot.onpointermove = (event) => readOut(event, plot, tip, cross, at, width, chosen);
  plot.onpointerleave = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
}

function drawLine(line, axis, at) {
  const points = line[axis].map((x, index) => [x, index]).filter(([x, index]) => x !== null && line.values[index] !== null);
  const through = (values, order = points) => order.map(([x, index]) => `${at.x(x).toFixed(1)},${at.y(values[index]).toFixed(1)}`);
  const drawn = [];
  if (line.low) {
    const band = [...through(line.high), ...through(line.low, [...points].reverse())].join(" ");
    drawn.push(svg("polygon", { points: band, style: `fill:${line.color};opacity:.18` }));
  }
  drawn.push(svg("polyline", { points: through(line.values).join(" "), style: `fill:none;stroke:${line.color};stroke-width:${line.low ? 2.2 : 1.4}` }));
  if (points.length <= 40) {
    drawn.push(...points.map(([x, index]) => svg("circle", { cx: at.x(x), cy: at.y(line.values[index]), r: line.low ? 3.4 : 2, style: `fill:${line.color}` })));
  }
  return drawn;
}

function readOut(event, plot, tip, cross, at, width, { series, axis }) {
  const box = plot.getBoundingClientRect();
  const wanted = ((event.clientX - box.left) * (width / box.width) - MARGIN.left) / (width - MARGIN.left - MARGIN.right) * at.right;
  const nearest = (line) => line[axis].reduce((best, x, index) =>
    x !== null && (best < 0 || Math.abs(x - wanted) < Math.abs(line[axis][best] - wanted)) ? index : best, -1);
  const x = finite(series.map((line) => line[axis][nearest(line)])).sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted))[0];
  if (x === undefined) return;
  const rows = series.map((line) => [line, nearest(line)]).filter(([, index]) => index >= 0).map(([line, index]) =>
    element("tr", {}, element("td", {}, key(line.color), line.label),
      element("td", { class: "number" }, number(line.values[index])),
      element("td", {}, line.low ? interval(line.low[index], line.high[index]) : "")));
  tip.replaceChildren(element("strong", {}, `${AXES[axis].label.split(",")[0]} ${AXES[axis].format(x)}`), element("table", {}, rows));
  tip.hidden = false;
  cross.setAttribute("visibility", "visible");
  cross.setAttribute("x1", at.x(x));
  cross.setAttribute("x2", at.x(x));
  const left = at.x(x) * (box.width / width);
  tip.style.top = "8px";
  tip.style.left = `${Math.max(0, left + 14 + tip.offsetWidth > box.width ? left - tip.offsetWidth - 14 : left + 14)}px`;
}
