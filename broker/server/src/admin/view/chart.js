/** Lines over time in an SVG, without a library. What they show is also text: the label, and the chosen moment. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 120;
/** Kept free at the top, for the number there. */
const ROOM = 20;

/** The next of 1, 2, 5, 10, 20, ... so that the scale does not change all the time. */
export function ceiling(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** A path through the values; `null` is a gap, a lone value a dot. */
export function path(values, count, top) {
  const x = (at) => ((count - values.length + at) / Math.max(1, count - 1)) * WIDTH;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - ROOM);
  let steps = "";
  let isOpen = false;
  values.forEach((value, at) => {
    if (value === null) {
      isOpen = false;
      return;
    }
    steps += isOpen ? `L${x(at).toFixed(1)} ${y(value).toFixed(1)}` : `M${x(at).toFixed(1)} ${y(value).toFixed(1)}h0.5`;
    isOpen = true;
  });
  return steps;
}

export class Chart {
  #svg;
  #top;
  #lines;
  #cursor;
  #format;
  #fields;

  /** `fields` are the samples' fields that are drawn, at most two; `format` writes a value for people. */
  constructor(id, fields, format) {
    this.#svg = document.getElementById(id);
    this.#top = document.getElementById(`${id}-top`);
    this.#svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#lines = fields.map((_, at) => this.#add("path", at === 0 ? "a" : "b"));
    this.#cursor = this.#add("line", "cursor");
    this.#fields = fields;
    this.#format = format;
  }

  #add(name, className) {
    const element = document.createElementNS(SVG, name);
    element.setAttribute("class", className);
    this.#svg.append(element);
    return element;
  }

  draw(samples, count) {
    const all = this.#fields.map(({ field }) => samples.map((sample) => sample[field]));
    const known = all.flat().filter((value) => value !== null);
    const top = ceiling(Math.max(0, ...known));
    this.#lines.forEach((line, at) => line.setAttribute("d", path(all[at], count, top)));
    this.#top.textContent = this.#format(top);
    const newest = samples.at(-1);
    this.#svg.setAttribute("aria-label", newest ? `${this.text(newest)}; scale up to ${this.#format(top)}` : "nothing yet");
  }

  /** Marks the sample at this place. */
  mark(at, length, count) {
    const x = ((count - length + at) / Math.max(1, count - 1)) * WIDTH;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: HEIGHT })) {
      this.#cursor.setAttribute(name, value.toFixed(1));
    }
  }

  /** Calls back with the place, from 0 to 1, at which a pointer is. */
  onPoint(callback) {
    this.#svg.addEventListener("pointermove", (event) => {
      const { left, width } = this.#svg.getBoundingClientRect();
      callback((event.clientX - left) / width);
    });
  }

  text(sample) {
    const value = (field) => (sample[field] === null ? "none" : this.#format(sample[field]));
    return this.#fields.map(({ field, name }) => `${name} ${value(field)}`).join(", ");
  }
}
