// The page: what all runs share first, then each run.

const LINES = {
  fitness_mean: "mean while training, keys of the training",
  fitness_best: "best while training",
};
const LINE_COLORS = { evaluation: seriesColor(0), fitness_mean: seriesColor(1), fitness_best: seriesColor(7) };

function curveSection(run) {
  if (!run.curve) return [];
  const labelled = [...run.curve.series].reverse().map((line) => ({ ...line, label: LINES[line.name] || run.words[line.name], color: LINE_COLORS[line.name] }));
  const returns = labelled.filter((line) => run.curve.fitness_is_return || line.name === "evaluation");
  const objective = labelled.filter((line) => !returns.includes(line));
  const references = run.returns.filter(({ is_reference: isReference }) => isReference).map(({ name, mean }) => ({ name: name + run.words.reference, value: mean }));
  return [element("h2", {}, "While it learned"),
    returns.length ? chart({ series: returns, references, label: run.words.axis }) : null,
    objective.length ? chart({ series: objective.map((line) => ({ ...line, label: line.label.split(",")[0] })), label: run.words.objective }) : null];
}

function comparison(runs) {
  const lines = runs.flatMap((run, index) => {
    const series = run.curve ? run.curve.series : [];
    const line = series.find(({ name }) => name === "evaluation") || (run.curve && run.curve.fitness_is_return && series.find(({ name }) => name === "fitness_mean"));
    return line ? [{ ...line, label: run.name, color: seriesColor(index) }] : [];
  });
  const rows = runs.flatMap((run, index) => {
    const best = run.returns.find(({ is_reference: isReference }) => !isReference) || run.fresh;
    return best ? [{ ...best, name: `${run.name}: ${best.name}`, color: seriesColor(index) }] : [];
  });
  return [element("h2", {}, "Compared"), lines.length ? chart({ series: lines, label: runs.every(({ words }) => words.axis === runs[0].words.axis) ? runs[0].words.axis : "return, or accuracy of images" }) : null, rows.length ? returnsTable(rows) : null];
}

function tile(label, value, detail) {
  return element("div", { class: "tile" }, element("div", { class: "label" }, label), element("div", { class: "value" }, value), element("div", { class: "detail" }, detail));
}

function tiles(run) {
  const [best] = run.returns.filter(({ is_reference: isReference }) => !isReference);
  const shown = best || run.fresh;
  const [zero] = run.returns.filter(({ is_reference: isReference }) => isReference);
  return element("div", { class: "tiles" },
    shown ? tile(`${run.words.measure}, ${shown.name}`, number(shown.mean), shown.low === null ? shown.interval : `95 % interval ${interval(shown.low, shown.high)}`) : null,
    zero ? tile(`${run.words.measure}, ${zero.name}`, number(zero.mean), zero.low === null ? "" : interval(zero.low, zero.high)) : null,
    run.pairs ? tile("synthetic pairs", number(run.pairs.count, 9), run.architecture) : tile("policy", run.architecture || UNKNOWN, ""),
    run.progress ? tile("training", run.progress.env_steps ? `${compact(run.progress.env_steps)} steps` : `${number(run.progress.iteration, 9)} iterations`,
      `${number(run.progress.iteration, 9)} iterations in ${duration(run.progress.seconds)}`) : null);
}

// The pairs that act most have colours of their own, all others share one.
function pairColors(pairs) {
  const removal = pairs && pairs.removal;
  const order = removal ? removal.pairs.map((pair, index) => [removal.shares[index], pair]).sort((a, b) => b[0] - a[0]).map(([, pair]) => pair) : [];
  return (pair) => (order.indexOf(pair) >= 0 && order.indexOf(pair) < 7 ? seriesColor(order.indexOf(pair)) : seriesColor(7));
}

function filmSection(run, colorOfPair) {
  if (!run.film) return { nodes: [element("h2", {}, "Film"), element("p", {}, run.problem)], seek: null };
  const { view, seek } = player(run.film, colorOfPair);
  return { nodes: [element("h2", {}, run.pairs ? "A policy, freshly trained" : "The policy"), element("p", {}, run.film.text), view], seek };
}

function runSections(run, heat = []) {
  const colorOfPair = pairColors(run.pairs);
  const film = filmSection(run, colorOfPair);
  const returns = run.fresh ? [...run.returns, run.fresh] : run.returns;
  return [tiles(run), ...curveSection(run),
    ...(returns.length ? [element("h2", {}, run.words.outcomes), returnsTable(returns, run.words.measure)] : []),
    ...film.nodes,
    ...(run.pairs ? pairsSection(run.pairs, run.film, film.seek, colorOfPair) : []),
    ...heat, element("h2", {}, "Settings"), settingsList(run.settings), element("h2", {}, "Versions"), settingsList(run.versions)];
}

function main() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { runs } = data;
  const head = [element("h1", {}, data.title), element("p", { class: "muted" }, data.subtitle)];
  const heat = data.generalisation.length ? [element("h2", {}, "Under other settings than its own"), ...data.generalisation.flatMap(heatMaps)] : [];
  const each = runs.length === 1 ? runSections(runs[0], heat)
    : runs.map((run, index) => element("section", { class: "run" }, element("h2", {}, key(seriesColor(index)), run.name), element("p", { class: "muted" }, run.subtitle), runSections(run)));
  document.getElementById("page").replaceChildren(...head, ...(runs.length > 1 ? comparison(runs) : []), ...each.filter(Boolean),
    ...(runs.length > 1 ? heat : []), element("p", { class: "note" }, data.footer));
}

main();
