// Tables: returns with their intervals, settings, and heat maps of generalisation.

function returnsTable(rows, measure = "return") {
  const ends = finite(rows.flatMap(({ mean, low, high }) => [mean, low, high]));
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const at = (value) => 3 + (94 * (value - low)) / (high - low || 1);
  const whisker = ({ mean, low: from, high: to }, color) => svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    from === null ? null : svg("line", { x1: at(from), x2: at(to), y1: 10, y2: 10, style: `stroke:${color};stroke-width:5;opacity:.35` }),
    svg("line", { x1: at(mean), x2: at(mean), y1: 3, y2: 17, style: `stroke:${color};stroke-width:3`, "vector-effect": "non-scaling-stroke" }));
  const body = rows.map((row) => element("tr", {},
    element("td", {}, row.color ? key(row.color) : null, row.name),
    element("td", { class: "number" }, element("strong", {}, number(row.mean))),
    element("td", { class: "number" }, interval(row.low, row.high)),
    element("td", { class: "whisker" }, whisker(row, row.color || "var(--series-1)")),
    element("td", { class: "muted kind" }, row.interval)));
  const names = ["", `mean ${measure}`, "95 % interval", "", "kind of interval"];
  const head = names.map((name, index) => element("th", { class: index === 1 || index === 2 ? "number" : null }, name));
  return element("div", { class: "scroll" }, element("table", { class: "wide" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

function settingsList(rows) {
  return element("dl", { class: "settings" }, rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function heatMaps(file) {
  const note = `${file.num_reaching} of ${file.num_cells} combinations reach ${percent(file.threshold)} of the file's own return, ${number(file.own)}; ` +
    `the zero dataset returns ${number(file.zero)}. Framed: the file's own settings; bold: reaches.`;
  return [element("h3", {}, file.name), element("p", { class: "note" }, note), element("div", { class: "heats panel" }, file.panels.map((panel) => heatMap(panel, file)))];
}

function heatMap(panel, { own, zero }) {
  const share = (mean) => Math.max(0, Math.min(1, (mean - zero) / (own - zero || 1)));
  const cell = ({ mean, own: isOwn, reaches }) => {
    if (mean === null) return element("td", { class: isOwn ? "own" : null }, "diverged");
    const style = `background:color-mix(in srgb, var(--heat-high) ${Math.round(100 * share(mean))}%, var(--heat-low));` +
      `font-weight:${reaches ? 700 : 400}`;
    return element("td", { class: isOwn ? "own" : null, style }, number(mean));
  };
  const head = element("tr", {}, element("th", {}, ""), panel.columns.map((name) => element("th", { scope: "col" }, name)));
  const body = panel.cells.map((row, index) => element("tr", {}, element("th", { scope: "row" }, panel.rows[index]), row.map(cell)));
  return element("div", {}, element("div", { class: "muted" }, `${panel.row_label} × ${panel.column_label}`),
    element("div", { class: "scroll" }, element("table", { class: "heat" }, element("thead", {}, head), element("tbody", {}, body))));
}
