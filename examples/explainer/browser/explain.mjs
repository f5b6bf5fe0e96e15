// Explain a photograph in the page: load explainer.onnx, run it on the pixels, draw its overlay.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more threads need a cross-origin isolated page

/** Return the pixels of a file as uint8 RGB, at most `most` on the longer side. */
async function pixels(file, canvas, most = 1024) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, most / Math.max(image.width, image.height));
  [canvas.width, canvas.height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from({ length: (data.length / 4) * 3 }, (_, i) => data[Math.floor(i / 3) * 4 + (i % 3)]);
}

/** Explain a photograph, draw it under its heat map, and return the outputs of the explainer. */
export async function explain(session, file, target, canvas) {
  const rgb = await pixels(file, canvas);
  const feeds = { image: new ort.Tensor("uint8", rgb, [1, canvas.height, canvas.width, 3]) };
  if (session.inputNames.includes("target")) feeds.target = new ort.Tensor("int64", BigInt64Array.of(BigInt(target)), [1]);
  else if (target !== -1) throw new Error("This file explains the highest output. Export it with --check-for web to choose.");
  const found = await session.run(feeds);
  const heat = new ImageData(Uint8ClampedArray.from(found.overlay.data), canvas.width, canvas.height);
  canvas.getContext("2d").drawImage(await createImageBitmap(heat), 0, 0); // drawImage blends, putImageData replaces
  return found;
}

const [photograph, target, answer, picture] = ["photograph", "target", "answer", "picture"].map((id) => document.getElementById(id));

async function show() {
  if (!photograph.files.length) return;
  answer.textContent = "Explaining …";
  try {
    const found = await explain(await session, photograph.files[0], target.valueAsNumber, picture);
    const error = found.completeness_error ? `, completeness error ${found.completeness_error.data[0].toExponential(1)}` : "";
    answer.textContent = `Class ${found.explained_target.data[0]}, output ${found.explained.data[0].toPrecision(4)}${error}`;
  } catch (error) {
    answer.textContent = error.message;
  }
}

export const session = ort.InferenceSession.create("explainer.onnx");
photograph.addEventListener("change", show);
target.addEventListener("change", show);
try {
  await session;
  photograph.disabled = false;
  answer.textContent = "Choose a photograph.";
} catch (error) {
  answer.textContent = error.message;
}
