// The player of a film: play and pause, a slider, speeds, and what happens at each step.

const SPEEDS = [[0.25, "¼×"], [1, "1×"], [4, "4×"]];

function player(film, colorOfPair) {
  const { steps, stride } = film;
  const last = film.num_frames - 1;
  let [index, playing, speed, before, visible] = [0, false, 1, 0, true];

  const canvas = element("canvas", { role: "img", "aria-label": "film of a freshly trained policy", "data-frame": 0, style: fitting(film, 440) });
  const play = element("button", { type: "button", onclick: () => setPlaying(!playing) }, "Play");
  const slider = element("input", { type: "range", min: 0, max: last, value: 0, "aria-label": "step", oninput: () => seek(Number(slider.value)) });
  const select = element("select", { "aria-label": "speed", onchange: () => { speed = Number(select.value); } },
    SPEEDS.map(([value, text]) => element("option", { value, selected: value === 1 ? "" : null }, text)));
  const place = element("span", { class: "muted" });
  const total = element("div", { class: "value" });
  const actions = actionReadout(steps);
  const acting = steps.acting ? element("div", {}) : null;

  function show() {
    const at = Math.floor(index);
    drawFilm(canvas, film, at);
    canvas.dataset.frame = at;
    slider.value = at;
    place.textContent = `step ${number(at * stride + 1, 9)} of ${number(last * stride + 1, 9)}`;
    total.textContent = number(steps.returns[at]);
    actions.show(at);
    if (acting) {
      const pair = steps.acting[at];
      acting.replaceChildren(...(pair < 0 ? ["none of them"] : [key(colorOfPair(pair)), `pair ${pair}`]));
    }
  }
  function seek(target) {
    index = Math.max(0, Math.min(last, target));
    show();
  }
  function advance(now) {
    if (!playing) return;
    const elapsed = Math.max(0, Math.min((now - before) / 1000, 0.25));
    before = now;
    if (visible) {
      index += elapsed * speed * film.frames_per_second;
      if (index >= last + 1) index = 0;
      show();
    }
    requestAnimationFrame(advance);
  }
  function setPlaying(value) {
    playing = value;
    play.textContent = playing ? "Pause" : "Play";
    before = performance.now();
    if (playing) requestAnimationFrame(advance);
  }

  new ResizeObserver(show).observe(canvas);
  isDark.addEventListener("change", show);
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; }).observe(canvas);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
  const view = element("div", { class: "panel film" },
    element("div", {}, canvas, element("div", { class: "controls" }, play, slider, select, place),
      steps.acting ? ribbon(steps.acting, colorOfPair) : null,
      film.legend.length ? element("div", { class: "legend" }, film.legend.map(([name, color]) => themedKey(film.colors[color], name))) : null),
    element("div", { class: "readout" },
      element("div", {}, element("div", { class: "muted" }, "return so far"), total),
      acting ? element("div", {}, element("div", { class: "muted" }, "pair that acts here"), acting) : null,
      actions.view));
  return { view, seek: (step) => { setPlaying(false); seek(Math.floor(step / stride)); view.scrollIntoView({ behavior: "smooth", block: "center" }); } };
}

function themedKey(colors, name) {
  const mark = key(colors[isDark.matches ? 1 : 0]);
  isDark.addEventListener("change", () => { mark.style.background = colors[isDark.matches ? 1 : 0]; });
  return element("span", {}, mark, name);
}

// Bars of the action at a step: probabilities, or values between their bounds.
function actionReadout({ action_names: names, actions, probabilities, low, high }) {
  const rows = names.map((name) => {
    const bar = element("i", { class: "fill" });
    const value = element("span", { class: "number" });
    return { bar, value, parts: [element("span", { class: "name" }, name), element("div", { class: "track" }, bar), value] };
  });
  function show(at) {
    rows.forEach(({ bar, value }, index) => {
      const chosen = probabilities ? probabilities[at][index] : actions[at][index];
      setBar(bar, chosen, probabilities ? 0 : low[index], probabilities ? 1 : high[index]);
      value.textContent = chosen.toFixed(2).replace("-", MINUS);
      value.style.fontWeight = probabilities && actions[at] === index ? 700 : 400;
    });
  }
  const title = probabilities ? "probability of actions (bold: taken)" : "action";
  return { show, view: element("div", {}, element("div", { class: "muted" }, title), element("div", { class: "bars" }, rows.map(({ parts }) => parts))) };
}

// A bar from zero, or from the lower bound where zero is outside.
function setBar(bar, value, low, high) {
  const share = (x) => Math.max(0, Math.min(100, (100 * (x - low)) / (high - low || 1)));
  const origin = share(Math.max(low, Math.min(high, 0)));
  bar.style.left = `${Math.min(origin, share(value))}%`;
  bar.style.width = `${Math.max(1, Math.abs(share(value) - origin))}%`;
}

// Which pair acts at each step, as a strip below the slider.
function ribbon(acting, colorOfPair) {
  const strip = svg("svg", { class: "ribbon", viewBox: `0 0 ${acting.length} 1`, preserveAspectRatio: "none", role: "img", "aria-label": "pair that acts at each step" });
  for (let start = 0, end = 0; start < acting.length; start = end) {
    while (end < acting.length && acting[end] === acting[start]) end += 1;
    const color = acting[start] < 0 ? "var(--line)" : colorOfPair(acting[start]);
    strip.append(svg("rect", { x: start, y: 0, width: end - start, height: 1, style: `fill:${color}` }));
  }
  return strip;
}
