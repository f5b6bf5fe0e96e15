// Refine Integrated Gradients to a tolerance, on a file of `onnxplain export --method gradient`. Runs in Node and browsers.
// @ts-check

/** @typedef {{outputs: ArrayLike<number>, gradients: ArrayLike<number>}} Found  f (k), and its gradients (k × n) */
/** @typedef {(points: Float32Array, count: number) => Promise<Found>} Evaluate  of `count` points of n numbers each */
/** @typedef {{from: number, to: number, sum: Float64Array, error: number}} Part  of the path, and its integral */
/** @typedef {{attribution: Float64Array, delta: number, mapError: number, evaluations: number, converged: boolean}} Refined */
/** @typedef {{tolerance?: number, mapTolerance?: number, maxEvaluations?: number, atOnce?: number}} Options */

// Gauss–Legendre with 2 points on [0, 1]. Networks with kinks gain little from more.
const POINTS = [0.5 - Math.sqrt(1 / 12), 0.5 + Math.sqrt(1 / 12)];
const FIRST = 4; // parts of the path before the first halving
const norm = (/** @type {Float64Array} */ v) => Math.sqrt(v.reduce((total, one) => total + one * one, 0));

/**
 * Integrate the gradient along the straight line from baseline to x, and halve the parts of largest error.
 *
 * Converged: |delta| ≤ tolerance · |f(x) − f(baseline)|, where delta is the sum of the attribution minus f(x) −
 * f(baseline), and mapError ≤ mapTolerance (default: 5 × tolerance). mapError is the relative L2 error of the attribution
 * that the differences between the parts and their halves predict, with random signs.
 * atOnce: points in one run; 1 for a file with a fixed batch of 1.
 * @param {Evaluate} evaluate @param {Float32Array} x @param {Float32Array} baseline @param {Options} [options]
 * @returns {Promise<Refined>}
 */
export async function refine(evaluate, x, baseline, options = {}) {
  const { tolerance = 0.01, mapTolerance = 5 * tolerance, maxEvaluations = 1024, atOnce = 16 } = options;
  if (!(tolerance > 0)) throw new RangeError(`expected a tolerance above 0, found ${tolerance}`);
  const n = x.length;
  if (baseline.length !== n) throw new RangeError(`expected a baseline of ${n} numbers, found ${baseline.length}`);
  let evaluations = 0;

  /** Evaluate at shares of the path. @param {number[]} shares @returns {Promise<Found>} */
  async function along(shares) {
    evaluations += shares.length;
    const points = new Float32Array(shares.length * n);
    shares.forEach((share, row) => {
      for (let i = 0; i < n; i++) points[row * n + i] = baseline[i] + share * (x[i] - baseline[i]);
    });
    return evaluate(points, shares.length);
  }

  /** Integrate over parts of the path. @param {[number, number][]} ends @returns {Promise<Part[]>} */
  async function integrals(ends) {
    const parts = ends.map(([from, to]) => ({ from, to, sum: new Float64Array(n), error: Infinity }));
    const all = parts.flatMap((part) => POINTS.map((point) => ({ part, share: part.from + point * (part.to - part.from) })));
    for (let begin = 0; begin < all.length; begin += atOnce) {
      const some = all.slice(begin, begin + atOnce);
      const { gradients } = await along(some.map(({ share }) => share));
      some.forEach(({ part }, row) => {
        const weight = (part.to - part.from) / POINTS.length;
        for (let i = 0; i < n; i++) part.sum[i] += weight * (x[i] - baseline[i]) * gradients[row * n + i];
      });
    }
    return parts;
  }

  const [start, end] = [(await along([0])).outputs[0], (await along([1])).outputs[0]];
  let parts = await integrals(Array.from({ length: FIRST }, (_, k) => [k / FIRST, (k + 1) / FIRST]));
  for (;;) {
    const attribution = new Float64Array(n);
    for (const { sum } of parts) sum.forEach((value, i) => (attribution[i] += value));
    const delta = attribution.reduce((total, value) => total + value, 0) - (end - start);
    const mapError = norm(Float64Array.from(parts, ({ error }) => error)) / (norm(attribution) || 1);
    const converged = Math.abs(delta) <= tolerance * Math.abs(end - start) && mapError <= mapTolerance;
    const room = Math.floor((maxEvaluations - evaluations) / (2 * POINTS.length));
    if (converged || room < 1) return { attribution, delta, mapError, evaluations, converged };
    parts.sort((one, other) => other.error - one.error || other.to - other.from - (one.to - one.from));
    const worst = parts[0].error;
    const count = Math.min(room, Math.max(1, parts.filter(({ error }) => error > 0 && error >= worst / 4).length));
    const split = parts.splice(0, count);
    const halves = await integrals(
      split.flatMap(({ from, to }) => /** @type {[number, number][]} */ ([[from, (from + to) / 2], [(from + to) / 2, to]])),
    );
    split.forEach(({ sum }, k) => {
      const [left, right] = [halves[2 * k], halves[2 * k + 1]];
      left.error = right.error = norm(sum.map((value, i) => value - left.sum[i] - right.sum[i])) / 2;
    });
    parts.push(...halves);
  }
}

/** @typedef {import("onnxruntime-common").InferenceSession} Session */
/** @typedef {import("onnxruntime-common").Tensor} Tensor */

/**
 * Return how `refine` evaluates an exported gradient. The explained class stays the same along the path.
 * @param {Session} session  of a file of `onnxplain export --method gradient --check-for node`
 * @param {typeof import("onnxruntime-common").Tensor} Tensor  of the same runtime
 * @param {string} input  the name of the attributed input
 * @param {readonly number[]} dims  of one sample of it: [1, …]
 * @param {number} target  class to explain
 * @param {Record<string, Tensor>} [others]  one sample of each further input
 * @returns {Evaluate}
 */
export function exportedGradient(session, Tensor, input, dims, target, others = {}) {
  if (!session.inputNames.includes("target")) {
    throw new Error("expected an input 'target', found none. Fix: export the gradient with --check-for node");
  }
  return async (points, count) => {
    /** @type {Record<string, Tensor>} */
    const feeds = { target: new Tensor("int64", BigInt64Array.of(BigInt(target)), [1]) };
    for (const [name, { type, data, dims }] of Object.entries(others)) {
      const rows = Array(count).fill(Array.from(/** @type {ArrayLike<any>} */ (data))).flat();
      feeds[name] = new Tensor(/** @type {any} */ (type), rows, [count, ...dims.slice(1)]);
    }
    feeds[input] = new Tensor("float32", points, [count, ...dims.slice(1)]);
    const { explained, attribution } = await session.run(feeds);
    if (attribution.size !== points.length) {
      throw new Error(`expected a gradient of shape ${[count, ...dims.slice(1)]}, found ${attribution.dims}`);
    }
    const numbers = (/** @type {Tensor} */ { data }) => /** @type {ArrayLike<number>} */ (data);
    return { outputs: numbers(explained), gradients: numbers(attribution) };
  };
}
