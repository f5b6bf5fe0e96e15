// The classes: the highest ones to choose from, and a search by name.

import { className, number, probability } from "./words.js";

const TOP = 5;
const MOST_FOUND = 60;
const $ = (id) => document.getElementById(id);

/** The scores as probabilities where they are such already, else their softmax. */
export function probabilities(scores) {
  const total = scores.reduce((a, b) => a + b, 0);
  if (scores.every((score) => score >= 0) && Math.abs(total - 1) <= 1e-3) return Array.from(scores);
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(scores, (score) => Math.exp(score - most));
  const whole = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / whole);
}

/** The list of classes and the search. choose(index) is called when the reader chooses one. */
export class Classes {
  constructor(names, choose) {
    this.names = names;
    this.choose = choose;
    this.count = names?.length ?? 0;
    this.softened = false;
    this.active = -1;
    this.wireSearch();
  }

  /** Show the scores of an answer, and which class is explained. */
  show(scores, chosen) {
    const shares = scores.length > 1 ? probabilities(scores) : null;
    const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
    const listed = order.slice(0, TOP);
    if (!listed.includes(chosen)) listed.push(chosen);
    this.count = scores.length;
    // Whether the percentages are a softmax of the scores.
    this.softened = shares !== null && shares.some((share, index) => share !== scores[index]);
    const focused = document.activeElement?.closest?.("#top") !== null && document.activeElement?.name === "class";
    $("top").replaceChildren(...listed.map((index) => this.entry(index, scores[index], shares?.[index], index === chosen)));
    if (focused) $("top").querySelector("input:checked")?.focus();
    $("waiting").hidden = true;
    $("classes").hidden = false;
    $("search-part").hidden = this.count <= TOP;
  }

  /** Show no classes: there is no answer. */
  clear() {
    $("waiting").hidden = false;
    $("classes").hidden = true;
    $("search-part").hidden = true;
  }

  entry(index, score, share, chosen) {
    const label = made("label", chosen ? "class chosen" : "class");
    const input = made("input");
    Object.assign(input, { type: "radio", name: "class", value: String(index), checked: chosen });
    input.addEventListener("change", () => this.choose(index));
    const line = made("span", "line");
    const name = made("span", "name", className(this.names, index));
    const value = made("span", "share", share === undefined ? number(score) : probability(share));
    value.title = `score ${number(score)}`;
    line.append(name, value);
    label.append(input, line);
    if (share !== undefined) {
      const bar = made("span", "bar");
      const fill = made("i");
      fill.style.width = `${(100 * share).toFixed(1)}%`;
      bar.append(fill);
      label.append(bar);
    }
    return label;
  }

  matches(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (let index = 0; index < this.count; index++) {
      const name = className(this.names, index).toLowerCase();
      if (words.every((word) => name.includes(word)) || String(index) === text.trim()) found.push(index);
    }
    // Names that begin with the text come first.
    const begins = (index) => (className(this.names, index).toLowerCase().startsWith(words.join(" ")) ? 0 : 1);
    return found.sort((a, b) => begins(a) - begins(b) || a - b);
  }

  wireSearch() {
    const search = $("search");
    const list = $("found");
    search.addEventListener("input", () => this.open());
    search.addEventListener("focus", () => search.value && this.open());
    search.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    search.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[data-index]");
      if (option) this.take(Number(option.dataset.index));
    });
  }

  open() {
    const text = $("search").value;
    const found = text.trim() ? this.matches(text) : [];
    const shown = found.slice(0, MOST_FOUND);
    const options = shown.map((index) => this.option(index));
    if (text.trim() && !found.length) options.push(note("No class has that name."));
    if (found.length > MOST_FOUND) options.push(note(`and ${found.length - MOST_FOUND} more`));
    $("found").replaceChildren(...options);
    this.active = -1;
    this.expanded(options.length > 0);
    this.mark(shown.length ? 0 : -1);
  }

  option(index) {
    const option = made("li", "", className(this.names, index));
    option.id = `class-${index}`;
    option.dataset.index = String(index);
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    return option;
  }

  mark(active) {
    const options = [...$("found").querySelectorAll("[data-index]")];
    this.active = active;
    options.forEach((option, index) => option.setAttribute("aria-selected", String(index === active)));
    if (options[active]) {
      $("search").setAttribute("aria-activedescendant", options[active].id);
      options[active].scrollIntoView({ block: "nearest" });
    } else $("search").removeAttribute("aria-activedescendant");
  }

  key(event) {
    const options = [...$("found").querySelectorAll("[data-index]")];
    const opened = !$("found").hidden && options.length > 0;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && opened) this.mark((this.active + step + options.length) % options.length);
    else if (event.key === "ArrowDown") this.open();
    else if (event.key === "Enter" && opened && this.active >= 0) this.take(Number(options[this.active].dataset.index));
    else if (event.key === "Escape" && !$("found").hidden) this.close();
    else return;
    event.preventDefault();
  }

  take(index) {
    $("search").value = "";
    this.close();
    this.choose(index);
  }

  close() {
    this.expanded(false);
    this.mark(-1);
  }

  expanded(open) {
    $("found").hidden = !open;
    $("search").setAttribute("aria-expanded", String(open));
  }
}

function note(text) {
  const entry = made("li", "none", text);
  entry.setAttribute("role", "option");
  entry.setAttribute("aria-disabled", "true");
  entry.setAttribute("aria-selected", "false");
  return entry;
}

/** An element with a class and a text. */
export function made(tag, name = "", text = null) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== null) element.textContent = text;
  return element;
}
