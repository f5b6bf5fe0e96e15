// Refine functions whose path integral is known by hand, and an exported network; print the answers as JSON.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , folder, gradient, inputs] = process.argv;
const { exportedGradient, refine } = await import(pathToFileURL(`${folder}/refine.mjs`));
const { readNpy } = await import(pathToFileURL(`${folder}/npy.mjs`));
const { default: ort } = await import(pathToFileURL(`${folder}/node_modules/onnxruntime-node/dist/index.js`));

/** Evaluate f and its gradient at each point of a batch. */
const each = (n, f, g) => async (points, count) => {
  const rows = Array.from({ length: count }, (_, row) => Array.from(points.subarray(row * n, (row + 1) * n)));
  return { outputs: rows.map(f), gradients: rows.flatMap(g) };
};
const product = each(2, ([a, b]) => a * a * b, ([a, b]) => [2 * a * b, a * a]);
const kink = each(1, ([a]) => Math.max(0, a - 0.3), ([a]) => [a > 0.3 ? 1 : 0]);
const wave = each(1, ([a]) => Math.sin(40 * a), ([a]) => [40 * Math.cos(40 * a)]);
const shown = ({ attribution, ...rest }) => ({ ...rest, attribution: Array.from(attribution) });
const refined = async (...given) => shown(await refine(...given));
const refused = (call) => call().then(() => null, (error) => error.message);
const of = (...values) => Float32Array.from(values);

const session = await ort.InferenceSession.create(gradient);
const x = readNpy(inputs);
const size = x.data.length / x.dims[0];
const network = [];
for (let sample = 0; sample < x.dims[0]; sample++) {
  const evaluate = exportedGradient(session, ort.Tensor, "input", [1, ...x.dims.slice(1)], 2);
  const one = x.data.slice(sample * size, (sample + 1) * size);
  network.push(await refined(evaluate, one, new Float32Array(size), { tolerance: 1e-3 }));
}
const mistaken = exportedGradient(session, ort.Tensor, "input", [1, ...x.dims.slice(1)], 5);
console.log(
  JSON.stringify({
    product: await refined(product, of(2, 3), of(0, 0), { tolerance: 1e-6 }),
    from_one: await refined(product, of(2, 3), of(1, 1), { tolerance: 1e-6 }),
    kink: await refined(kink, of(1), of(0), { tolerance: 1e-3 }),
    wave: await refined(wave, of(1), of(0), { tolerance: 1e-4, atOnce: 1 }),
    too_few: await refined(kink, of(1), of(0), { tolerance: 1e-6, maxEvaluations: 60 }),
    nothing: await refined(kink, of(0.2), of(0)),
    network,
    refused: [
      await refused(() => refine(kink, of(1), of(0), { tolerance: 0 })),
      await refused(() => refine(kink, of(1), of(0, 1))),
      await refused(() => mistaken(new Float32Array(size), 1)),
      await refused(async () => exportedGradient({ inputNames: ["input"] }, ort.Tensor, "input", [1, 3], 0)),
    ],
  }),
);
