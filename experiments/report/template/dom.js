// Elements are made of text, never of markup: names from files cannot become code.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const key = (color) => element("span", { class: "key", style: `background:${color}` });
const seriesColor = (index) => `var(--series-${index % 8})`;

function choice(label, options, chosen, onChoice) {
  const buttons = options.map(([value, text]) =>
    element("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text));
  function choose(value) {
    options.forEach(([option], index) => buttons[index].setAttribute("aria-pressed", String(option === value)));
    onChoice(value);
  }
  return element("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}
