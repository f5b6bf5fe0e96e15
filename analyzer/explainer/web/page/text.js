// Tokens on their colours, with their share below.

import { made } from "./classes.js";

// Ink on the fullest colour stays readable, in both colour schemes.
const STRENGTH = { signed: 0.6, importance: 0.48 };
const FAINT = 0.02;

/** A share as its neighbours are written, three digits of the largest: "+1.23", "−0.05", "0". */
export function scoreText(score, limit, signed) {
  const digits = limit > 0 ? Math.min(9, Math.max(0, 2 - Math.floor(Math.log10(limit)))) : 0;
  const text = Math.abs(score).toFixed(digits);
  if (Number(text) === 0) return "0";
  return `${signed ? (score < 0 ? "−" : "+") : ""}${text}`;
}

/** Fill an element with the tokens. scores: one for each token. */
export function showTokens(element, tokens, scores, view, look) {
  const values = Array.from(scores, (score) => (view.absolute ? Math.abs(score) : score));
  const limit = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  element.replaceChildren(
    ...tokens.map((token, index) => {
      const item = made("span", token.special ? "special" : "");
      item.setAttribute("role", "listitem");
      const word = made("b", "", token.text);
      word.style.backgroundColor = colour(values[index], limit, view, look);
      item.append(word, made("small", "", scoreText(values[index], limit, view.signed)));
      return item;
    }),
  );
  element.hidden = false;
}

function colour(value, limit, view, look) {
  const share = limit > 0 ? Math.min(Math.abs(value) / limit, 1) : 0;
  if (share < FAINT) return "transparent";
  const colours = view.signed && value < 0 ? look.lowers : view.signed ? look.raises : look.sequential;
  // Of the colours from dark to bright, the orange ones are read as "more" on any ground.
  const at = 3 * Math.round((view.signed ? share : 0.74) * (colours.length / 3 - 1));
  return `rgb(${colours[at]} ${colours[at + 1]} ${colours[at + 2]} / ${(STRENGTH[view.signed ? "signed" : "importance"] * share ** 0.75).toFixed(3)})`;
}
