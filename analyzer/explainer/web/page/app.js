// The page: what the reader gives goes to the worker, what the worker finds is shown.

import { Classes, made } from "./classes.js";
import { gradient, unpacked } from "./draw.js";
import { PictureError, composed, download, fileName, put, readPicture, readsTruePixels, sized } from "./picture.js";
import { showTokens } from "./text.js";
import { className, completeness, duration, megabytes } from "./words.js";

const $ = (id) => document.getElementById(id);
const state = { description: null, look: null, ready: false, running: false, next: null, id: 0, shown: null, label: "", pictures: 0 };
let worker, classes;

begin();

async function begin() {
  $("opened-as-file").remove();
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") {
    fail("This browser cannot run the model. Try a recent Chrome, Edge, Firefox or Safari.");
    return;
  }
  let description;
  try {
    const response = await fetch(new URL("explainer.json", import.meta.url));
    if (!response.ok) throw new Error(String(response.status));
    description = await response.json();
  } catch {
    fail("The file explainer.json could not be loaded. Check that the whole folder was copied, and reload the page.");
    return;
  }
  state.description = description;
  state.look = unpacked(description.page.look);
  classes = new Classes(description.class_names, (target) => ask({ target }));
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => received(data);
  worker.onerror = () => fail("The model's worker could not be started. Try a recent Chrome, Edge, Firefox or Safari.");
  worker.postMessage({ kind: "start", description });
  wire();
  showView();
  offerSamples(description.page.samples ?? []);
}

function wire() {
  for (const input of $("views").querySelectorAll("input")) input.addEventListener("change", showView);
  if (state.description.page.views.length < 2) $("views").hidden = true;
  if (state.description.page.kind === "image") wirePicture();
  else {
    $("writing").addEventListener("submit", (event) => {
      event.preventDefault();
      explainText($("words").value);
    });
    $("words").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) explainText($("words").value);
    });
  }
}

function wirePicture() {
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) open(file, file.name);
    $("file").value = "";
  });
  $("opacity").addEventListener("input", showOpacity);
  $("download").addEventListener("click", save);
  addEventListener("paste", (event) => {
    const [file] = [...(event.clipboardData?.files ?? [])].filter((one) => one.type.startsWith("image/"));
    if (file) open(file, "pasted picture");
  });
  // Texts that are dragged around are not for the page.
  const isFile = (event) => event.dataTransfer?.types?.includes("Files") ?? false;
  addEventListener("dragenter", (event) => {
    if (isFile(event)) $("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").hidden = true;
  });
  addEventListener("dragover", (event) => {
    if (isFile(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    $("drop").hidden = true;
    if (!isFile(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer?.files ?? [];
    if (file) open(file, file.name);
  });
  showOpacity();
}

function offerSamples(samples) {
  const kind = state.description.page.kind;
  for (const sample of samples) {
    const button = made("button", "sample");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    if (kind === "image") {
      const image = made("img");
      image.src = sample.file;
      image.alt = "";
      button.append(image);
    }
    button.append(made("span", "", sample.name));
    button.addEventListener("click", () => takeSample(sample, button));
    $("sample-list").append(button);
  }
  $("samples").hidden = !samples.length;
  // The first sample shows at once what the page does.
  if (samples.length) takeSample(samples[0], $("sample-list").firstElementChild);
}

async function takeSample(sample, button) {
  if (state.description.page.kind === "text") {
    $("words").value = sample.text;
    explainText(sample.text);
    press(button);
    return;
  }
  try {
    const response = await fetch(new URL(sample.file, import.meta.url));
    if (!response.ok) throw new Error(String(response.status));
    await open(await response.blob(), sample.name, button);
  } catch {
    problem("The sample could not be loaded. Check the connection, or choose a file.");
  }
}

function press(button) {
  for (const one of $("sample-list").children) one.setAttribute("aria-pressed", String(one === button));
}

/** Show a picture, and have it explained. */
async function open(blob, name, button = null) {
  const number = ++state.pictures;
  try {
    const picture = await readPicture(blob, name, state.description.page.most_side);
    // A picture that was chosen later is read already.
    if (number !== state.pictures) return;
    problem("");
    press(button);
    const { rgba, width, height, canvas, reduced } = picture;
    sized($("photo"), width, height).getContext("2d").drawImage(canvas, 0, 0);
    for (const id of ["ground", "heat"]) sized($(id), width, height);
    $("picture").hidden = false;
    $("picture").setAttribute("aria-label", `Picture: ${name}`);
    $("invitation").hidden = true;
    $("stage").classList.remove("empty");
    $("reading").hidden = true;
    $("check").hidden = true;
    $("download").disabled = true;
    Object.assign(state, { shown: null, label: name, reduced: reduced ? `${width} × ${height}` : "" });
    ask({ target: null, picture: { rgba, width, height } });
  } catch (error) {
    problem(error instanceof PictureError ? error.message : "The picture could not be read. Choose another file.");
  }
}

function explainText(text) {
  press(null);
  if (!text.trim()) {
    problem("There is no text yet. Write a sentence, or choose a sample.");
    return;
  }
  problem("");
  state.label = text;
  ask({ target: null, text });
}

/** Send a request, or keep it as the next one while another runs: only the last matters. */
function ask(request) {
  const before = state.next;
  // A class that is chosen while a new picture waits is for that picture.
  state.next = before?.picture && !request.picture ? { ...request, picture: before.picture } : request;
  if (state.description.page.kind === "text") state.next.text ??= state.label;
  busy(true);
  send();
}

function send() {
  if (!state.ready || state.running || !state.next) return;
  const request = state.next;
  Object.assign(state, { next: null, running: true, id: state.id + 1 });
  worker.postMessage({ kind: "explain", id: state.id, ...request });
}

function received(message) {
  if (message.kind === "progress") {
    $("progress").max = message.total;
    $("progress").value = message.loaded;
    const whole = message.loaded >= message.total;
    $("loading-text").textContent = whole
      ? "Preparing the model"
      : `Loading the model: ${megabytes(message.loaded)} of ${megabytes(message.total)}`;
  } else if (message.kind === "ready") {
    state.ready = true;
    $("loading").hidden = true;
    say(state.next ? "The model is ready." : "The model is ready. Choose a file or a sample.");
    if (state.description.page.kind === "image" && !readsTruePixels()) {
      problem("This browser alters the pixels that pages read, against fingerprinting. The map may differ a little from the true one.");
    }
    send();
  } else if (message.kind === "failed") {
    fail(message.message);
  } else {
    state.running = false;
    if (state.next) {
      send();
      return;
    }
    busy(false);
    if (message.kind === "refused") refused(message.message);
    else show(message);
  }
}

/** Say why there is no explanation; the page goes back to the one before, if it is of the same picture. */
function refused(text) {
  if (state.shown) show(state.shown);
  else classes.clear();
  problem(text);
}

function show(found) {
  state.shown = found;
  const { description } = state;
  problem("");
  classes.show(found.scores, found.target);
  showView();
  $("reading").hidden = false;
  const name = className(description.class_names, found.target);
  const sums = completeness(found, name);
  $("completeness").className = sums.good === null ? "" : sums.good ? "good" : "bad";
  $("completeness").replaceChildren(...(sums.good === null ? [] : [mark(sums.good)]), sums.text);
  const size = state.reduced ? ` The picture was made smaller first, to ${state.reduced} pixels.` : "";
  $("time").textContent = `Computed on this device in ${duration(found.milliseconds)}.${size}`;
  $("parts-meaning").hidden = sums.good === null;
  $("score-meaning").hidden = sums.good === null || !classes.softened;
  $("check").hidden = false;
  if (description.page.kind === "image") $("download").disabled = false;
  say(`Explained ${name} in ${duration(found.milliseconds)}. ${sums.text}`);
  document.dispatchEvent(new CustomEvent("onnxplain:explained", { detail: found }));
}

function mark(good) {
  const element = made("span", "mark", good ? "✓" : "!");
  element.setAttribute("aria-hidden", "true");
  return element;
}

/** Show the chosen view of what was found. */
function showView() {
  const { page, class_names: names } = state.description;
  const key = $("views").querySelector("input:checked")?.value;
  const view = page.views.find((one) => one.key === key) ?? page.views[0];
  // Over a photograph, the middle of a signed map is its grey ground.
  const middle = view.signed && page.kind === "image" ? ", rgb(165 165 165)" : "";
  $("ramp").style.background = gradient(view, state.look) + middle;
  [$("legend-low").textContent, $("legend-high").textContent] = view.legend;
  const { shown } = state;
  if (!shown) return;
  const name = className(names, shown.target);
  $("sentence").textContent = view.sentence.replaceAll("{class}", () => name);
  if (page.kind === "text") {
    showTokens($("tokens"), shown.tokens, shown.maps[view.output], view, state.look);
    return;
  }
  const { left, top, right, bottom } = shown.frame;
  $("framed").hidden = right - left === shown.width && bottom - top === shown.height;
  const { ground, heat } = shown.drawn[view.key];
  put($("ground"), ground, shown.width, shown.height);
  put($("heat"), heat, shown.width, shown.height);
  $("picture").setAttribute("aria-label", `Picture ${state.label} with the map for ${name}. ${$("sentence").textContent}`);
}

function showOpacity() {
  const share = Number($("opacity").value) / 100;
  $("opacity-value").textContent = `${$("opacity").value} %`;
  $("ground").style.opacity = $("heat").style.opacity = String(share);
}

async function save() {
  const { class_names: names } = state.description;
  const name = fileName(state.label.replace(/\.[a-z]+$/i, ""), className(names, state.shown.target));
  try {
    download(await composed([$("photo"), $("ground"), $("heat")], Number($("opacity").value) / 100), name);
    say(`Downloaded ${name}.`);
  } catch {
    problem("The picture could not be written. Try a smaller picture.");
  }
}

function busy(running) {
  $("busy")?.toggleAttribute("hidden", !(running && state.ready));
  if (running && state.ready) document.body.setAttribute("aria-busy", "true");
  else document.body.removeAttribute("aria-busy");
}

function say(text) {
  $("status").textContent = text;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** A problem after which the page cannot go on. */
function fail(text) {
  problem(text);
  $("loading").hidden = true;
  busy(false);
}
