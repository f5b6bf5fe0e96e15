// A map becomes colours: the same scale, smoothing and opacity as the pictures of the reports.

/** Colours from hexadecimal text: a Uint8Array of r, g, b. */
export function ramp(hex) {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

/** Spread every value over its neighbours along one axis; the sum stays the same. */
function spread(values, count, length, step, next, radius) {
  const scaled = new Float64Array(length);
  for (let line = 0; line < count; line++) {
    const start = line * next;
    for (let i = 0; i < length; i++) {
      const covered = Math.min(i + radius, length - 1) - Math.max(i - radius, 0) + 1;
      scaled[i] = values[start + i * step] / covered;
    }
    let sum = 0;
    for (let i = 0; i < Math.min(radius, length); i++) sum += scaled[i];
    for (let i = 0; i < length; i++) {
      if (i + radius < length) sum += scaled[i + radius];
      if (i - radius - 1 >= 0) sum -= scaled[i - radius - 1];
      values[start + i * step] = sum;
    }
  }
}

/** The radii of three boxes whose variances sum to that of a Gaussian, as nearly as whole pixels allow. */
function radii(sigma) {
  const variance = 12 * sigma * sigma;
  let width = Math.floor(Math.sqrt(variance / 3 + 1));
  if (width % 2 === 0) width -= 1;
  const narrow = Math.round((variance - 3 * width * width - 12 * width - 9) / (-4 * width - 4));
  return [0, 1, 2].map((pass) => ((pass < narrow ? width : width + 2) - 1) / 2);
}

/** A map smoothed by a Gaussian, made of three boxes. share: its standard deviation as a share of the short side. */
export function smoothed(map, width, height, share) {
  const values = Float64Array.from(map);
  for (const radius of radii(share * Math.min(width, height))) {
    if (radius < 1) continue;
    spread(values, height, width, 1, width, radius);
    spread(values, width, height, width, 1, radius);
  }
  return values;
}

/** The value below which a share (in percent) of the values lies; of at most a quarter of a million of them. */
export function percentile(values, share) {
  const stride = Math.max(1, Math.ceil(values.length / 250000));
  const taken = new Float64Array(Math.ceil(values.length / stride));
  for (let i = 0, k = 0; i < values.length; i += stride) taken[k++] = values[i];
  taken.sort();
  const at = (share / 100) * (taken.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, taken.length - 1);
  return taken[low] + (at - low) * (taken[high] - taken[low]);
}

/** The ends of the colours, [low, high]; of a map with signs they are symmetric about 0. */
export function ends(values, signed, share) {
  if (signed) {
    const sizes = Float64Array.from(values, Math.abs);
    const high = percentile(sizes, share) || sizes.reduce((a, b) => Math.max(a, b), 0);
    return [-high, high];
  }
  const low = percentile(values, 100 - share);
  const high = percentile(values, share);
  if (high > low) return [low, high];
  return [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
}

/** The number that is nearest; of two, the even one. */
function nearest(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/**
 * The part of a picture that the model sees, {left, top, right, bottom} in whole pixels.
 * seen: how the picture is read: {size: [height, width], resize, fit, rounding}; null where the model sees all of it.
 */
export function framed(width, height, seen) {
  const whole = { left: 0, top: 0, right: width, bottom: height };
  if (!seen || seen.fit === "pad") return whole;
  const short = Math.min(width, height);
  const scale = Math.max(seen.size[0] / height, seen.size[1] / width);
  const part = (length, size) => {
    let resized;
    if (seen.fit === "stretch") resized = seen.resize ?? size;
    else if (seen.resize === null) resized = nearest(length * scale);
    else if (seen.rounding === "nearest") resized = nearest(length * (seen.resize / short));
    else resized = Math.floor((length * seen.resize) / short);
    resized = Math.max(resized, size);
    const rest = resized - size;
    const start = seen.rounding === "torchvision" ? nearest(rest / 2) : Math.floor(rest / 2);
    // A pixel is seen where its centre is.
    const first = Math.max(0, Math.ceil((start * length) / resized - 0.5));
    return [first, Math.min(length, Math.floor(((start + size) * length) / resized - 0.5) + 1)];
  };
  const [top, bottom] = part(height, seen.size[0]);
  const [left, right] = part(width, seen.size[1]);
  return right > left && bottom > top ? { left, top, right, bottom } : whole;
}

/** The values of a view within a frame, as they are drawn. */
function shown(map, width, view, { left, top, right, bottom }) {
  const across = right - left;
  const values = new Float64Array(across * (bottom - top));
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const value = map[y * width + x];
      values[(y - top) * across + x - left] = view.absolute ? Math.abs(value) : value;
    }
  }
  return view.smoothing > 0 ? smoothed(values, across, bottom - top, view.smoothing) : values;
}

/** A function from a value to its colours and opacity: (value) => [where its colour begins, the colours, opacity]. */
function scaleOf(values, view, look) {
  const [low, high] = ends(values, view.signed, look.percentile);
  const span = view.signed ? high : high - low;
  const within = (share) => (span > 0 ? Math.min(Math.max(share / span, 0), 1) : 0);
  const shades = look.sequential.length / 3 - 1;
  return (value) => {
    const share = within(view.signed ? Math.abs(value) : value - low);
    const colours = view.signed ? (value >= 0 ? look.raises : look.lowers) : look.sequential;
    return [3 * Math.round(share * shades), colours, share ** (view.signed ? 1.2 : 1.25)];
  };
}

/**
 * The two layers over a photograph, as RGBA: `ground`, the photograph in pale colours or in grey, and `heat`, the map.
 * map: height × width values. pixels: RGBA of the photograph. view: {signed, absolute, smoothing}. frame: the part that
 * the model sees; the rest is dark, and the frame is drawn.
 */
export function layers(map, pixels, width, height, view, look, frame = framed(width, height, null)) {
  const values = shown(map, width, view, frame);
  const colour = scaleOf(values, view, look);
  const heat = new Uint8ClampedArray(4 * width * height);
  const ground = new Uint8ClampedArray(4 * width * height);
  const { left, top, right, bottom } = frame;
  const line = right - left < width || bottom - top < height ? Math.max(1, Math.round(Math.min(width, height) / 250)) : 0;
  const [r, g, b] = look.luma;
  for (let y = 0, k = 0; y < height; y++) {
    for (let x = 0; x < width; x++, k += 4) {
      const grey = r * pixels[k] + g * pixels[k + 1] + b * pixels[k + 2];
      ground[k + 3] = 255;
      // How deep the pixel lies within the frame.
      const depth = Math.min(x - left, right - 1 - x, y - top, bottom - 1 - y);
      if (depth < line) {
        ground[k] = ground[k + 1] = ground[k + 2] = depth < 0 ? 0.4 * grey : 245;
        continue;
      }
      for (let c = 0; c < 3; c++) {
        ground[k + c] = view.signed ? 255 * look.ground + look.contrast * grey : 0.85 * (0.6 * pixels[k + c] + 0.4 * grey);
      }
      const [at, colours, opacity] = colour(values[(y - top) * (right - left) + x - left]);
      heat[k] = colours[at];
      heat[k + 1] = colours[at + 1];
      heat[k + 2] = colours[at + 2];
      heat[k + 3] = 255 * opacity;
    }
  }
  return { ground, heat };
}

/** The legend of a view as a CSS gradient. */
export function gradient(view, look) {
  const shade = (colours, share) => {
    const at = 3 * Math.round(share * (colours.length / 3 - 1));
    return `rgb(${colours[at]} ${colours[at + 1]} ${colours[at + 2]} / ${view.signed ? Math.min(1, 0.06 + share ** 1.2) : 1})`;
  };
  const steps = Array.from({ length: 17 }, (_, i) => i / 16);
  const colours = view.signed
    ? steps.map((at) => (at < 0.5 ? shade(look.lowers, 1 - 2 * at) : shade(look.raises, 2 * at - 1)))
    : steps.map((at) => shade(look.sequential, at));
  return `linear-gradient(90deg, ${colours.join(", ")})`;
}

/** The colours of a page's description, unpacked. */
export function unpacked(look) {
  return { ...look, sequential: ramp(look.sequential), raises: ramp(look.raises), lowers: ramp(look.lowers) };
}
