// Texts become token ids, by the model's own tokenizer.

/** The tokenizer of this site. */
export async function prepared() {
  const { Tokenizer } = await import("./vendor/tokenizers.min.mjs");
  const response = await fetch(new URL("tokenizer.json", import.meta.url));
  if (!response.ok) throw new Error(`tokenizer.json: ${response.status}`);
  const stored = await response.json();
  const special = new Set((stored.added_tokens ?? []).filter((one) => one.special).map((one) => one.content));
  const padding = stored.padding ?? null;
  const find = (text) => (text === undefined ? undefined : tokenizer.token_to_id(text));
  const tokenizer = new Tokenizer(stored, {});
  const pad = padding?.pad_id ?? find("[PAD]") ?? find("<pad>") ?? find("<|endoftext|>") ?? 0;
  return { tokenizer, special, pad, most: stored.truncation?.max_length ?? null };
}

/**
 * The inputs of one text: {ids, mask, types, positions}, padded where the model takes one length; `shown`, the tokens
 * to show: {text, special}; `tooLong` where there are more tokens than the model takes.
 */
export function encoded({ tokenizer, special, pad, most }, text, { length }) {
  const found = tokenizer.encode(text, { return_token_type_ids: true });
  const ids = Array.from(found.ids, Number);
  const count = ids.length;
  const shown = found.tokens.map((token) => ({ text: readable(token), special: special.has(token) }));
  const mask = ids.map(() => 1);
  const types = Array.from(found.token_type_ids ?? ids.map(() => 0), Number);
  while (length !== null && ids.length < length) {
    ids.push(pad);
    mask.push(0);
    types.push(0);
  }
  const positions = ids.map((_, index) => index);
  return { ids, mask, types, positions, shown, count, most: length ?? most, tooLong: count > (length ?? most ?? Infinity) };
}

/** A token as a reader writes it: "Ġword" and "▁word" begin with a blank, "##ing" goes on. */
export function readable(token) {
  return token.replace(/[Ġ▁]/g, " ").replace(/Ċ/g, "↵").replace(/^##/, "").replace(/[\n\r]/g, "↵").replace(/\t/g, "⇥").trim() || "␣";
}
