// Read the metadata of an ONNX file, which ONNX Runtime does not show to JavaScript. Runs in Node and in browsers.

const METADATA_PROPS = 14; // the number of this field in ONNX's ModelProto; each entry has key = 1 and value = 2

/** Return {key: value} of an ONNX file. @param {Uint8Array} file @returns {Record<string, string>} */
export function metadata(file) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const [field, bytes] of fields(file)) {
    if (field !== METADATA_PROPS) continue;
    const entry = new Map(fields(bytes));
    const text = new TextDecoder();
    found[text.decode(entry.get(1))] = text.decode(entry.get(2));
  }
  return found;
}

/** Yield [number, bytes] of each field of a Protocol Buffers message that has bytes. @param {Uint8Array} message */
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      value += (byte & 127) * factor;
      if (!(byte & 128)) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const wire = key & 7;
    if (wire === 0) varint();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const length = varint();
      yield /** @type {[number, Uint8Array]} */ ([key >>> 3, message.subarray(at, at + length)]);
      at += length;
    } else throw new Error("expected an ONNX file");
  }
}
