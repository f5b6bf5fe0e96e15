// Numbers and sentences as a reader wants them.

/** A number with three significant digits and a typographic minus: "9.17", "−0.0043", "1,230". */
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 999.5 && size < 999500) text = Number(value.toPrecision(3)).toLocaleString("en");
  else if (size < 1e-4 || size >= 999500) text = value.toExponential(1);
  else text = String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}

/** A share as percent with the digits that matter: "38.6 %", "0.0002 %", "0 %". */
export function percent(share) {
  const value = 100 * share;
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0 %";
  if (Math.abs(value) >= 10) return `${Math.round(value).toLocaleString("en")} %`;
  const digits = Math.min(9, Math.max(0, 1 - Math.floor(Math.log10(Math.abs(value)))));
  const text = Number(value.toPrecision(2)).toFixed(digits);
  return `${text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text} %`;
}

/** The probability of a class: "38.6 %", "<0.1 %". */
export function probability(share) {
  if (share > 0 && share < 0.001) return "<0.1 %";
  return share >= 0.9995 && share < 1 ? ">99.9 %" : `${(100 * share).toFixed(1)} %`;
}

/** A duration: "370 ms", "2.4 s". */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** A size of a file in megabytes: "33 MB", "0.4 MB". */
export function megabytes(bytes) {
  const value = bytes / 1e6;
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} MB`;
}

/** The name of a class, or its number. */
export function className(names, index) {
  const name = names?.[index]?.trim();
  return name || `class ${index}`;
}

/** What the parts of an explanation sum to: {good, text}; good is null where there is nothing to check. */
export function completeness(found, name) {
  const score = number(found.explained);
  if (found.error !== null) {
    return found.error <= 0.01
      ? { good: true, text: `Yes: its parts sum to the score of “${name}”, ${score}. They miss it by ${percent(found.error)}.` }
      : { good: false, text: `Not fully: its parts miss the score of “${name}”, ${score}, by ${percent(found.error)}.` };
  }
  if (found.delta !== null && found.total !== null) {
    const change = found.total - found.delta;
    const error = Math.abs(found.delta) / Math.max(Math.abs(change), 1e-12);
    const whole = `the change of the score of “${name}” from the baseline, ${number(change)}`;
    return error <= 0.05
      ? { good: true, text: `Yes: its parts sum to ${whole}. They miss it by ${percent(error)}.` }
      : { good: false, text: `Not fully: its parts miss ${whole}, by ${percent(error)}.` };
  }
  return {
    good: null,
    text: "This method shows where to look. Its values do not add up to the score, so there is no sum to check.",
  };
}
