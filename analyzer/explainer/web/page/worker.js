// Runs the model, so that the page never waits: loads it with progress, explains a picture or a text, draws the layers.
//
// In:  {kind: "start", description}, {kind: "explain", id, target, picture?: {rgba, width, height}, text?}
// Out: {kind: "progress", loaded, total}, {kind: "ready"}, {kind: "failed", message}, {kind: "explained", id, ...},
//      {kind: "refused", id, message}

import * as ort from "./vendor/ort.wasm.bundle.min.mjs";
import { framed, layers, unpacked } from "./draw.js";
import { encoded, prepared } from "./tokens.js";

let session, page, look, tokenizer, picture;

self.onmessage = async ({ data }) => {
  if (data.kind === "start") {
    try {
      await start(data.description);
      self.postMessage({ kind: "ready" });
    } catch (error) {
      self.postMessage({ kind: "failed", message: loadingProblem(error) });
    }
    return;
  }
  try {
    const { message, transfer } = await explain(data);
    self.postMessage({ kind: "explained", id: data.id, ...message }, transfer);
  } catch (error) {
    self.postMessage({ kind: "refused", id: data.id, message: runningProblem(error) });
  }
};

/** An error whose text is written for the reader. */
class Told extends Error {}

function loadingProblem(error) {
  if (error instanceof Told) return error.message;
  if (error instanceof RangeError || /memory/i.test(String(error))) {
    return "The model needs more memory than this browser may use. Close other tabs, or try a computer with more memory.";
  }
  return `The model could not be loaded: ${short(error)}. Reload the page; if that does not help, try a recent Chrome, Edge, Firefox or Safari.`;
}

function runningProblem(error) {
  if (error instanceof Told) return error.message;
  if (picture && /memory|alloc/i.test(String(error))) return "The picture needs more memory than this browser may use. Try a smaller picture.";
  const what = page.kind === "text" ? "this text. Try a shorter text" : "this picture. Try another picture";
  return `The model could not explain ${what}. (${short(error)})`;
}

function short(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ");
  return text.length > 200 ? `${text.slice(0, 199)}…` : text;
}

async function start(description) {
  page = description.page;
  look = unpacked(page.look);
  const files = [page.files.model, page.files.runtime];
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  const loaded = files.map(() => 0);
  const report = (index) => (bytes) => {
    loaded[index] = bytes;
    self.postMessage({ kind: "progress", loaded: loaded.reduce((a, b) => a + b), total });
  };
  const [model, runtime] = await Promise.all(files.map((file, index) => read(file, report(index))));
  if (page.kind === "text") tokenizer = await prepared();
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = runtime.buffer;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

/** The bytes of a file, of a size that is known; report(bytes) as they come. */
async function read(file, report) {
  let response;
  try {
    response = await fetch(new URL(file.file, import.meta.url));
  } catch {
    throw new Told(`The file ${file.file} could not be loaded. Check the connection, and reload the page.`);
  }
  if (!response.ok) throw new Told(`The file ${file.file} could not be loaded (${response.status}). Check that the whole folder was copied.`);
  const bytes = new Uint8Array(file.bytes);
  const reader = response.body.getReader();
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes.length) throw new Told(`The file ${file.file} is not the one that this page was made with. Reload the page.`);
    bytes.set(value, at);
    at += value.length;
    report(at);
  }
  if (at !== bytes.length) throw new Told(`The file ${file.file} is incomplete: ${at} of ${bytes.length} bytes arrived. Reload the page.`);
  return bytes;
}

async function explain({ target, picture: given, text }) {
  const feeds = { [page.target]: new ort.Tensor("int64", BigInt64Array.of(BigInt(target ?? -1)), [1]) };
  let tokens = null;
  if (page.kind === "image") {
    if (given) picture = given;
    const { rgba, width, height } = picture;
    feeds[page.image] = new ort.Tensor("uint8", rgb(rgba), [1, height, width, 3]);
  } else {
    tokens = encoded(tokenizer, text, page.tokens);
    if (!tokens.ids.length) throw new Told("The text has no words. Write a sentence.");
    if (tokens.tooLong) throw new Told(`The text has ${tokens.count} tokens, and the model takes ${tokens.most}. Write a shorter text.`);
    for (const [kind, input] of Object.entries(page.tokens.inputs)) feeds[input.name] = row(input.type, tokens[kind]);
  }
  const wanted = [...new Set([page.output, ...page.views.map((view) => view.output), ...outputsToCheck()])];
  const began = performance.now();
  const results = await session.run(feeds, wanted);
  const milliseconds = performance.now() - began;
  const scores = numbers(results[page.output]);
  if (!scores.every(Number.isFinite)) throw new Told(`The scores of the model are not finite for this ${page.kind === "text" ? "text" : "picture"}. Try another one.`);
  const message = {
    milliseconds,
    scores,
    target: first(results, "explained_target") ?? highest(scores),
    explained: first(results, "explained") ?? NaN,
    error: first(results, "completeness_error"),
    delta: page.sum_of === "difference" ? first(results, "delta") : null,
    total: page.sum_of === "difference" ? sum(results, "attribution") : null,
    maps: {},
    drawn: {},
  };
  const transfer = [];
  for (const view of page.views) {
    const map = tokens ? tokenShares(results[view.output]) : numbers(results[view.output]);
    if (!map.every(Number.isFinite)) throw new Told("The map of this explanation is not finite, so there is nothing to show. Try another class.");
    if (tokens) {
      if (map.length !== tokens.ids.length) throw new Told("The map has another length than the text: this page and its model do not fit together.");
      message.maps[view.output] = map.slice(0, tokens.shown.length);
      continue;
    }
    const { rgba, width, height } = picture;
    if (map.length !== width * height) throw new Told("The map has another size than the picture: this page and its model do not fit together.");
    message.maps[view.output] = map;
    const drawn = layers(map, rgba, width, height, view, look, framed(width, height, page.seen));
    message.drawn[view.key] = drawn;
    transfer.push(drawn.ground.buffer, drawn.heat.buffer);
  }
  if (tokens) message.tokens = tokens.shown;
  else Object.assign(message, { width: picture.width, height: picture.height, frame: framed(picture.width, picture.height, page.seen) });
  for (const tensor of Object.values(results)) tensor.dispose?.();
  return { message, transfer };
}

/** The outputs that say whether the explanation is complete; those of a path also need the attribution's sum. */
function outputsToCheck() {
  const { attribution, ...others } = page.outputs;
  return [...Object.values(others), ...(page.sum_of === "difference" && others.delta && attribution ? [attribution] : [])];
}

function first(results, role) {
  const tensor = results[page.outputs[role]];
  return tensor ? Number(numbers(tensor)[0]) : null;
}

function sum(results, role) {
  const tensor = results[page.outputs[role]];
  if (!tensor) return null;
  let total = 0;
  for (const value of numbers(tensor)) total += value;
  return total;
}

/** One number for each token: of an attribution (1, T, D), the sum over each vector. */
function tokenShares(tensor) {
  const values = numbers(tensor);
  if (tensor.dims.length < 3) return values;
  const size = tensor.dims[2];
  return Float32Array.from({ length: tensor.dims[1] }, (_, at) => {
    let total = 0;
    for (let i = 0; i < size; i++) total += values[at * size + i];
    return total;
  });
}

function highest(scores) {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

function rgb(rgba) {
  const pixels = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0, k = 0; i < rgba.length; i += 4) {
    pixels[k++] = rgba[i];
    pixels[k++] = rgba[i + 1];
    pixels[k++] = rgba[i + 2];
  }
  return pixels;
}

function row(type, values) {
  const data = {
    int64: () => BigInt64Array.from(values, BigInt),
    int32: () => Int32Array.from(values),
    float32: () => Float32Array.from(values),
    bool: () => Uint8Array.from(values),
  }[type]();
  return new ort.Tensor(type, data, [1, values.length]);
}

/** The values of a tensor as numbers; float16 comes as its bits where the browser has no array of that type. */
function numbers(tensor) {
  const { data, type } = tensor;
  if (type === "float32") return new Float32Array(data);
  if (type === "float16" && data instanceof Uint16Array) return Float32Array.from(data, half);
  return Float64Array.from(data, Number);
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}
