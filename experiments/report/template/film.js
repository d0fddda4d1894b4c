// Films: primitives drawn on a canvas. Coordinates are those of the drawing, y up.

const isDark = matchMedia("(prefers-color-scheme: dark)");

const PAINTERS = {
  segments(context, part, frame, pixel) {
    context.lineWidth = Math.max(part.width, 1.3 * pixel);
    context.lineCap = "round";
    context.beginPath();
    for (let index = 0; index < frame.length; index += 4) {
      context.moveTo(frame[index], frame[index + 1]);
      context.lineTo(frame[index + 2], frame[index + 3]);
    }
    context.stroke();
  },
  circles(context, part, frame) {
    for (let index = 0; index < frame.length; index += 2) {
      context.beginPath();
      context.arc(frame[index], frame[index + 1], part.radius, 0, 2 * Math.PI);
      context.fill();
    }
  },
  polygon(context, part, frame) {
    context.beginPath();
    for (let index = 0; index < frame.length; index += 2) context.lineTo(frame[index], frame[index + 1]);
    context.fill();
  },
};

function pick(frames, index) {
  return frames[Math.min(index, frames.length - 1)];
}

function drawFilm(canvas, film, index) {
  const [left, bottom, width, height] = film.window;
  const pixels = canvas.clientWidth * (devicePixelRatio || 1);
  if (!pixels) return;
  canvas.width = Math.round(pixels);
  canvas.height = Math.round((pixels * height) / width);
  const context = canvas.getContext("2d");
  const scale = canvas.width / width;
  const color = (name) => film.colors[name][isDark.matches ? 1 : 0];
  const [x, y] = film.camera ? pick(film.camera, index) : [0, 0];
  for (const part of film.parts) {
    context.setTransform(scale, 0, 0, -scale, -(left + x) * scale, (bottom + y + height) * scale);
    if (part.kind === "cells") drawCells(context, part, index, canvas, color);
    else if (part.kind === "label") drawLabel(context, part, scale, canvas, [left, bottom + height], color);
    else {
      context.fillStyle = context.strokeStyle = color(part.color);
      PAINTERS[part.kind](context, part, pick(part.frames, index), (devicePixelRatio || 1) / scale);
    }
  }
}

function drawCells(context, part, index, canvas, color) {
  const [width, height] = [canvas.width / part.columns, canvas.height / part.rows];
  const opacity = part.opacity && pick(part.opacity, index);
  context.setTransform(1, 0, 0, 1, 0, 0);
  pick(part.frames, index).forEach((chosen, cell) => {
    if (chosen < 0) return;
    context.fillStyle = color(part.colors[chosen]);
    context.globalAlpha = opacity ? opacity[cell] / 100 : 1;
    context.fillRect((cell % part.columns) * width + 0.5, Math.floor(cell / part.columns) * height + 0.5, width - 1, height - 1);
  });
  context.globalAlpha = 1;
}

function drawLabel(context, part, scale, canvas, [left, top], color) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = color(part.color);
  context.font = `${Math.max(part.size * scale, 9)}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  context.fillText(part.text, (part.place[0] - left) * scale, (top - part.place[1]) * scale);
}

// The style of a canvas that is at most so many pixels tall.
const fitting = ({ window: [, , width, height] }, tallest) => `max-width:${Math.round((tallest * width) / height)}px`;

// A canvas that shows one frame, drawn again when its size or the theme changes.
function still(film, index, label) {
  const canvas = element("canvas", { role: "img", "aria-label": label, style: fitting(film, 190) });
  const draw = () => drawFilm(canvas, film, index);
  new ResizeObserver(draw).observe(canvas);
  isDark.addEventListener("change", draw);
  return canvas;
}
