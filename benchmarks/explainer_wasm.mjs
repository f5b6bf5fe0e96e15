// Print the median seconds of a run of each file with onnxruntime-web on one thread, as JSON. Runs alternate.
// node explainer_wasm.mjs NODE_MODULES '{"name": ["file.onnx", {"input": ["float32", [1, 3, 224, 224]]}]}' ROUNDS

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , packages, described, rounds] = process.argv;
const ort = await import(pathToFileURL(`${packages}/onnxruntime-web/dist/ort.wasm.min.mjs`));
ort.env.wasm.numThreads = 1;

/** Return noise, or zeros of an integer type. */
function tensor([type, dims]) {
  const size = dims.reduce((product, side) => product * side, 1);
  if (type === "int64") return new ort.Tensor(type, new BigInt64Array(size), dims);
  return new ort.Tensor(type, Float32Array.from({ length: size }, () => 2 * Math.random() - 1), dims);
}

const runs = {};
for (const [name, [path, inputs]] of Object.entries(JSON.parse(described))) {
  const session = await ort.InferenceSession.create(readFileSync(path));
  const feeds = Object.fromEntries(Object.entries(inputs).map(([input, one]) => [input, tensor(one)]));
  runs[name] = () => session.run(feeds);
  await runs[name]();
}
const times = Object.fromEntries(Object.keys(runs).map((name) => [name, []]));
for (let round = 0; round < Number(rounds); round++) {
  for (const [name, call] of Object.entries(runs)) {
    const begun = performance.now();
    await call();
    times[name].push((performance.now() - begun) / 1e3);
  }
}
const median = (values) => values.sort((one, other) => one - other)[Math.floor(values.length / 2)];
console.log(JSON.stringify(Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]))));
