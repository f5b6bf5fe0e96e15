// Read a photograph, and draw it under its heat map. Needs sharp.

async function sharp(...given) {
  const { default: make } = await import("sharp").catch(() => {
    throw new Error("expected the package sharp, which reads photographs. Fix: npm install, or give a .npy file");
  });
  return make(...given);
}

/** Return the uint8 pixels (1, height, width, 3) of a photograph. */
export async function readPhotograph(path) {
  const image = (await sharp(path)).rotate().toColourspace("srgb").removeAlpha();
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  return { type: "uint8", dims: [1, info.height, info.width, 3], data: Uint8Array.from(data) };
}

/** Write one of the images (N, height, width, 3) under its RGBA overlay as a PNG. */
export async function drawPhotograph(path, image, overlay, sample) {
  const [, height, width] = image.dims;
  const pixels = ({ data }, channels) => {
    const size = height * width * channels;
    return [Buffer.from(data.slice(sample * size, (sample + 1) * size)), { raw: { width, height, channels } }];
  };
  const [input, how] = pixels(overlay, 4);
  const drawn = (await sharp(...pixels(image, 3))).composite([{ input, ...how }]);
  await drawn.removeAlpha().png().toFile(path);
}
