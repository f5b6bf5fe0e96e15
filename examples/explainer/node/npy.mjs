// Read and write the .npy files of NumPy as tensors of ONNX Runtime: {type, dims, data}.

import { readFileSync, writeFileSync } from "node:fs";

const TYPES = {
  "<f2": ["float16", Uint16Array], "<f4": ["float32", Float32Array], "<f8": ["float64", Float64Array],
  "|i1": ["int8", Int8Array], "<i2": ["int16", Int16Array], "<i4": ["int32", Int32Array], "<i8": ["int64", BigInt64Array],
  "|u1": ["uint8", Uint8Array], "<u2": ["uint16", Uint16Array], "<u4": ["uint32", Uint32Array],
  "<u8": ["uint64", BigUint64Array], "|b1": ["bool", Uint8Array],
};

/** Return the tensor in a .npy file. */
export function readNpy(path) {
  const bytes = readFileSync(path);
  if (bytes.toString("latin1", 1, 6) !== "NUMPY") throw new Error(`expected a .npy file, found ${path}`);
  const begin = bytes[6] === 1 ? 10 : 12;
  const end = begin + (bytes[6] === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8));
  const header = bytes.toString("latin1", begin, end);
  const descr = /'descr': '([^']+)'/.exec(header)?.[1];
  if (!(descr in TYPES)) throw new Error(`expected numbers in little-endian order, found ${descr ?? "records"} in ${path}`);
  if (!header.includes("'fortran_order': False")) throw new Error(`expected rows in C order in ${path}. Fix: np.ascontiguousarray`);
  const dims = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((size) => size.trim()).map(Number);
  const [type, View] = TYPES[descr];
  const data = bytes.buffer.slice(bytes.byteOffset + end, bytes.byteOffset + bytes.length);
  return { type, dims, data: new View(data) };
}

/** Write a tensor to a .npy file. */
export function writeNpy(path, { type, dims, data }) {
  const descr = Object.keys(TYPES).find((key) => TYPES[key][0] === type);
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(", ");
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape}), }`;
  const padded = header.padEnd(128 * Math.ceil((header.length + 11) / 128) - 11) + "\n";
  const start = Buffer.concat([Buffer.from("\x93NUMPY\x01\x00", "latin1"), Buffer.alloc(2)]);
  start.writeUInt16LE(padded.length, 8);
  const values = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  writeFileSync(path, Buffer.concat([start, Buffer.from(padded, "latin1"), values]));
}
