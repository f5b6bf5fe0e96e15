// The normalisation that SentencePiece stores in a tokenizer as a table: a trie over UTF-8 (a double array) and its texts.

/** A function from a text to its normalised text. table: base64 of the trie's size, the trie and the texts. */
export function precompiled(table) {
  const bytes = Uint8Array.from(atob(table), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = view.getUint32(0, true);
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const texts = bytes.subarray(4 + size);
  const [encoder, decoder] = [new TextEncoder(), new TextDecoder()];
  const offset = (unit) => (unit >>> 10) << ((unit & 512) >>> 6);

  /** The text of the shortest entry that a part begins with; null where there is none. */
  function replaced(part) {
    let at = offset(units[0]);
    for (const byte of encoder.encode(part)) {
      if (byte === 0) return null;
      at ^= byte;
      const unit = units[at] ?? 0;
      if ((unit & 0x800000ff) >>> 0 !== byte) return null;
      at ^= offset(unit);
      if ((unit >>> 8) & 1) {
        const start = units[at] & 0x7fffffff;
        return decoder.decode(texts.subarray(start, texts.indexOf(0, start)));
      }
    }
    return null;
  }

  const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
  return (text) => {
    let found = "";
    for (const { segment } of graphemes.segment(text)) {
      const whole = encoder.encode(segment).length < 6 ? replaced(segment) : null;
      found += whole ?? Array.from(segment, (letter) => replaced(letter) ?? letter).join("");
    }
    return found;
  };
}

/** Give a tokenizer its stored tables: the package has one approximation for all of them. stored: its description. */
export function withTables(tokenizer, stored) {
  const visit = (normalizer, description) => {
    if (!normalizer || !description) return;
    if (description.type === "Precompiled" && description.precompiled_charsmap) {
      normalizer.normalize = precompiled(description.precompiled_charsmap);
    }
    (description.normalizers ?? []).forEach((one, index) => visit(normalizer.normalizers?.[index], one));
  };
  visit(tokenizer.normalizer, stored.normalizer);
}
