// Explain inputs with an explainer file. Needs onnxruntime-node; sharp to read photographs.
//
// node explain.mjs explainer.onnx cat.jpg                   a file with preprocessing inside takes a photograph
// node explain.mjs explainer.onnx x.npy --target 285        without, it takes the model's own input, (N, …)
// node explain.mjs explainer.onnx ids=a.npy mask=b.npy      several inputs, each by its name
//
// Prints the explained class of each sample, its output, and the share of it that the attribution misses. Writes each map
// as an array, and the photograph under its heat map where the file has an overlay.

import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import ort from "onnxruntime-node";
import { metadata } from "./metadata.mjs";
import { readNpy, writeNpy } from "./npy.mjs";
import { drawPhotograph, readPhotograph } from "./photographs.mjs";

const read = (path) => (path.endsWith(".npy") ? readNpy(path) : readPhotograph(path));

/** Return the default of an input: a number or a list that broadcasts to its shape. */
function defaultOf({ name, shape, type, default: value }) {
  if (value === null) throw new Error(`expected an array for the input '${name}', found none. Fix: add ${name}=FILE.npy`);
  let dims = [];
  for (let part = value; Array.isArray(part); part = part[0]) dims.push(part.length);
  if (!dims.length) dims = shape.map((size) => (typeof size === "number" ? size : 1));
  const count = dims.reduce((product, size) => product * size, 1);
  const values = Array.isArray(value) ? value.flat(Infinity) : Array(count).fill(value);
  return new ort.Tensor(type, type === "int64" ? BigInt64Array.from(values, BigInt) : values, dims);
}

/** Return the feeds of a session: what is given, and the defaults of the other inputs. */
function feedsOf(session, inputs, given) {
  for (const name of Object.keys(given)) {
    if (session.inputNames.includes(name)) continue;
    const fix = inputs.some((one) => one.name === name && one.optional)
      ? "In this file it is optional, and onnxruntime-node ignores optional inputs. Fix: export again with --check-for node"
      : "Fix: take one of these";
    throw new Error(`expected the inputs ${session.inputNames.join(", ")}, found '${name}'. ${fix}`);
  }
  const described = Object.fromEntries(inputs.map((one) => [one.name, one]));
  const feeds = {};
  for (const name of session.inputNames) {
    const { type, dims, data } = given[name] ?? defaultOf(described[name]);
    const { type: wanted, shape } = described[name];
    const fits = dims.length === shape.length && shape.every((size, axis) => typeof size !== "number" || size === dims[axis]);
    if (type !== wanted || !fits) {
      const fix = fits && type !== "uint8"
        ? `Fix: np.save(FILE, array.astype("${wanted}"))`
        : "Fix: export with --with-preprocessing to feed photographs, or give a .npy file of this shape";
      throw new Error(`expected '${name}' as ${wanted} (${shape.join(", ")}), found ${type} (${dims.join(", ")}). ${fix}`);
    }
    feeds[name] = new ort.Tensor(type, data, dims);
  }
  return feeds;
}

const sum = (values) => values.reduce((total, value) => total + Number(value), 0);

/** Return the share of its goal that the sum of each attribution misses; null for methods without a goal. */
function shortfall(roles) {
  if (roles.completeness_error) return Array.from(roles.completeness_error[0].data, Number);
  if (!roles.delta) return null;
  return Array.from(roles.delta[0].data, (delta, sample) => {
    const parts = roles.attribution.map(({ data, dims }) => {
      const size = data.length / dims[0];
      return sum(data.subarray(sample * size, (sample + 1) * size));
    });
    return Math.abs(delta / (sum(parts) - delta));
  });
}

/** Refuse a class that the explained output does not have. The run would fail with a message of the runtime. */
function checkTarget(outputs, target) {
  for (const { shape } of outputs.filter(({ explains }) => explains)) {
    const count = shape.slice(1).reduce((product, size) => product * size, 1); // NaN where a size varies
    if (target < -1 || target >= count) {
      throw new Error(`expected a target from 0 to ${count - 1}, or -1 for the highest, found ${target}`);
    }
  }
}

/** Return the names of the classes; [] where the explained output is not one score for each of them. */
function classNames(outputs, stored) {
  const names = JSON.parse(stored["onnxplain.class_names"] ?? "[]");
  const shapes = outputs.filter(({ explains }) => explains).map(({ shape }) => shape.slice(1).join());
  // A file is untrusted: control characters do not reach the terminal.
  return shapes.join(";") === String(names.length) ? names.map((name) => String(name).replace(/\p{C}/gu, "")) : [];
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { target: { type: "string" }, out: { type: "string", short: "o", default: "." } },
  });
  const [explainer, ...files] = positionals;
  if (!files.length) throw new Error("expected: node explain.mjs EXPLAINER [NAME=]FILE… [--target N] [--out FOLDER]");
  const session = await ort.InferenceSession.create(explainer);
  const stored = metadata(readFileSync(explainer));
  if (!stored["onnxplain.explainer"]) throw new Error(`expected a file of \`onnxplain export\`, found ${explainer} without its description`);
  const { inputs, outputs } = JSON.parse(stored["onnxplain.explainer"]);
  const names = classNames(outputs, stored);
  const first = inputs.find(({ role }) => role === "image" || role === "model").name;
  const given = {};
  for (const argument of files) {
    const cut = argument.lastIndexOf("=");
    given[cut < 0 ? first : argument.slice(0, cut)] = await read(argument.slice(cut + 1));
  }
  if (values.target !== undefined) {
    checkTarget(outputs, Number(values.target));
    given.target = { type: "int64", dims: [1], data: BigInt64Array.of(BigInt(values.target)) };
  }

  const found = await session.run(feedsOf(session, inputs, given));
  const roles = {};
  for (const { name, role } of outputs) (roles[role] ??= []).push({ name, ...pick(found[name]) });

  const errors = shortfall(roles);
  roles.explained[0].data.forEach((value, sample) => {
    const index = roles.explained_target && Number(roles.explained_target[0].data[sample]);
    const shown = index === undefined ? "" : `class ${index}${names[index] ? ` (${names[index]})` : ""}, `;
    const error = errors ? `, completeness error ${errors[sample].toExponential(1)}` : "";
    console.log(`sample ${sample}: ${shown}output ${Number(value.toPrecision(6))}${error}`);
  });

  mkdirSync(values.out, { recursive: true });
  for (const map of [...(roles.map ?? []), ...(roles.complete_map ?? [])]) {
    writeNpy(join(values.out, `${map.name.replace(/[^A-Za-z0-9.-]/g, "_")}.npy`), map);
  }
  for (let sample = 0; roles.overlay && sample < given[first].dims[0]; sample++) {
    await drawPhotograph(join(values.out, `explained_${sample}.png`), given[first], roles.overlay[0], sample);
  }
}

const pick = ({ type, dims, data }) => ({ type, dims, data });

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 2;
});
