// Files become pixels, and layers become the picture that is shown and downloaded.

const MOST_BYTES = 200e6;

/** An error whose text is written for the reader. */
export class PictureError extends Error {}

/** The pixels of a file, upright, on white where it is transparent: {rgba, width, height, canvas, reduced}. */
export async function readPicture(blob, name, mostSide) {
  const label = name ? `“${name}”` : "This file";
  if (blob.size > MOST_BYTES) throw new PictureError(`${label} is too large. Choose a picture of less than 200 MB.`);
  let bitmap;
  try {
    // Colours as stored in the file: what the model would read elsewhere.
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new PictureError(`${label} is not a picture that this browser can open. Choose a JPEG, PNG or WebP file.`);
  }
  const scale = Math.min(1, mostSide / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = sized(document.createElement("canvas"), width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  return { rgba, width, height, canvas, reduced: scale < 1 };
}

/** Whether the browser returns the pixels that were drawn; some alter them against fingerprinting. */
export function readsTruePixels() {
  const canvas = sized(document.createElement("canvas"), 32, 32);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const drawn = context.createImageData(32, 32);
  for (let i = 0; i < drawn.data.length; i++) drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 32, 32).data;
  return drawn.data.every((value, index) => value === read[index]);
}

export function sized(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** Put RGBA values on a canvas. */
export function put(canvas, rgba, width, height) {
  sized(canvas, width, height).getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}

/** The picture as shown, as a PNG. canvases: from the back to the front. opacity: of all but the first. */
export function composed(canvases, opacity) {
  const [photo, ...others] = canvases;
  const canvas = sized(document.createElement("canvas"), photo.width, photo.height);
  const context = canvas.getContext("2d");
  context.drawImage(photo, 0, 0);
  context.globalAlpha = opacity;
  for (const layer of others) context.drawImage(layer, 0, 0);
  return new Promise((done, failed) =>
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new PictureError("The picture could not be written."))), "image/png"),
  );
}

/** Offer a file for download. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** A name for a file: letters, digits and dashes. */
export function fileName(...parts) {
  const plain = (part) => part.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40);
  return `${parts.map(plain).filter(Boolean).join("-") || "explanation"}.png`;
}
