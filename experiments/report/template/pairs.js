// Cards of the synthetic pairs.

const FIRST_CARDS = 8;

function pairsSection(pairs, film, seek, colorOfPair) {
  const costs = new Map((pairs.removal ? pairs.removal.costs : []).map((cost) => [cost.pair, cost]));
  const shares = new Map((pairs.removal ? pairs.removal.pairs : []).map((pair, index) => [pair, pairs.removal.shares[index]]));
  const weight = (pair) => (costs.has(pair) ? 1e12 + costs.get(pair).mean : pairs.nearest ? pairs.nearest.shares[pair] : -pair);
  const order = [...Array(pairs.count).keys()].sort((a, b) => weight(b) - weight(a) || a - b);
  const dearest = costs.size ? order[0] : -1;
  const card = (pair) => pairCard({ pairs, pair, film, seek, cost: costs.get(pair), share: shares.get(pair), isDearest: pair === dearest, color: colorOfPair(pair) });
  const holder = element("div", { class: "cards" }, order.slice(0, FIRST_CARDS).map(card));
  const more = element("button", { type: "button", onclick: () => { holder.append(...order.slice(FIRST_CARDS).map(card)); more.remove(); } }, `Show all ${pairs.count} pairs`);
  return [
    element("h2", {}, pairs.count === 1 ? "The synthetic pair" : `The ${pairs.count} synthetic pairs`),
    dearest < 0 ? null : element("p", {}, dearestText(pairs, dearest, costs.get(dearest))),
    element("p", { class: "note" }, [...pairs.notes, statesNote(pairs)].join(" ")),
    holder, order.length > FIRST_CARDS ? more : null];
}

function statesNote({ units, visited, values }) {
  if (!values) return `States are in ${units}.`;
  return `States are in ${units}${visited ? "; grey is the range of those in the film, orange the pair" : ""}.`;
}

function dearestText({ count, removal }, pair, cost) {
  const among = removal.pairs.length < count ? `Of the ${removal.pairs.length} pairs that were removed, ` : "";
  const doubt = cost.low !== null && cost.low <= 0 ? "; the interval holds 0: it may cost nothing" : "";
  return `${among}${among ? "r" : "R"}emoving pair ${pair} costs most: ${changeOf(cost)}${doubt}.`;
}

const changeOf = ({ mean, low, high }) => `the return changes by ${number(-mean)} ${low === null ? "" : interval(-high, -low)}`;

function pairCard({ pairs, pair, film, seek, cost, share, isDearest, color }) {
  const step = pairs.nearest && pairs.nearest.steps[pair];
  const ofFilm = !pairs.picture && film && pairs.nearest && !film.parts.some(({ kind }) => kind === "label");
  const thumbnail = pairs.picture ? still(pairs.picture, pair, `state of pair ${pair}`)
    : ofFilm ? [still(film, Math.floor(step / film.stride), `visited state nearest to pair ${pair}`), element("div", { class: "muted" }, "the nearest visited state")] : null;
  return element("article", { class: "card" },
    element("header", {}, key(color), element("h3", {}, `Pair ${pair}`), isDearest ? element("span", { class: "badge" }, "costs most") : null),
    thumbnail,
    pairs.values ? [element("h4", {}, "state"), components(pairs, pair)] : null,
    element("h4", {}, pairs.discrete ? "action probabilities" : "target action"),
    actionBars(pairs, pair),
    element("ul", { class: "facts" },
      cost ? element("li", {}, `without it ${changeOf(cost)}`) : null,
      share !== undefined ? element("li", {}, `acts at ${percent(share)} of the steps of the film`) : null,
      pairs.nearest ? element("li", {}, `nearest visited state: step ${number(step + 1, 9)}, ${number(pairs.nearest.distances[pair], 2)} away`,
        film ? element("button", { type: "button", onclick: () => seek(step) }, "show") : null) : null));
}

function components({ observation_names: names, values, visited, num_components: total }, pair) {
  const rows = names.flatMap((name, index) => {
    const column = values.map((row) => row[index]);
    const ends = visited ? [visited[0][index], visited[1][index]] : [0, 0];
    const low = Math.min(...column, ends[0]);
    const span = Math.max(...column, ends[1]) - low || 1;
    const share = (value) => 6 + (88 * (value - low)) / span;
    const range = visited ? element("i", { class: "range", style: `left:${share(ends[0])}%;width:${Math.max(1, share(ends[1]) - share(ends[0]))}%` }) : null;
    return [element("span", { class: "name" }, name),
      element("div", { class: "track" }, range, element("i", { class: "dot", style: `left:${share(values[pair][index])}%` })),
      element("span", { class: "number" }, number(values[pair][index], 3))];
  });
  const hidden = total - names.length;
  return element("div", {}, element("div", { class: "bars" }, rows), hidden ? element("div", { class: "muted" }, `and ${hidden} more, which differ less`) : null);
}

function actionBars({ action_names: names, actions, discrete }, pair) {
  const reach = discrete ? 1 : Math.max(...actions.flat().map(Math.abs)) || 1;
  const rows = names.flatMap((name, index) => {
    const bar = element("i", { class: "fill" });
    setBar(bar, actions[pair][index], discrete ? 0 : -reach, reach);
    return [element("span", { class: "name" }, name), element("div", { class: "track" }, bar), element("span", { class: "number" }, signed(actions[pair][index].toFixed(2)))];
  });
  return element("div", { class: "bars" }, rows);
}
