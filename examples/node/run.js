// Runs a spiking network in stock onnxruntime, without the native library of pconv-onnx:
//
//   node run.js MODEL.onnx IMAGES.npy [LOGITS.npy]
//
// IMAGES.npy holds float32 [B, ...] for the model's input. Prints the top-1 class of each, and writes the model's first
// output where a third file is named.
const fs = require('node:fs');
const ort = require('onnxruntime-node');

function readNpy(path) {
  const file = fs.readFileSync(path);
  const start = file[6] === 1 ? 10 : 12; // the header's length has two bytes in version 1, four later
  const length = file[6] === 1 ? file.readUInt16LE(8) : file.readUInt32LE(8);
  const header = file.toString('latin1', start, start + length);
  if (!header.includes("'descr': '<f4'") || !header.includes("'fortran_order': False")) {
    throw new Error(`${path} is not float32 in C order`);
  }
  const dims = header.match(/'shape': \(([^)]*)\)/)[1].match(/\d+/g).map(Number);
  // A copy: a view of float32 has to begin at a multiple of four bytes.
  const bytes = new Uint8Array(file.subarray(start + length));
  return new ort.Tensor('float32', new Float32Array(bytes.buffer), dims);
}

function writeNpy(path, tensor) {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${tensor.dims.join(',')},), }`;
  const padded = header.padEnd(128 - 10 - 1) + '\n';
  const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length, 0]);
  const data = Buffer.from(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  fs.writeFileSync(path, Buffer.concat([start, Buffer.from(padded, 'latin1'), data]));
}

async function main([model, images, output]) {
  const session = await ort.InferenceSession.create(model);
  const results = await session.run({ [session.inputNames[0]]: readNpy(images) });
  const logits = results[session.outputNames[0]];
  const [samples, classes] = logits.dims;
  for (let sample = 0; sample < samples; sample++) {
    const row = logits.data.subarray(sample * classes, (sample + 1) * classes);
    console.log(row.indexOf(Math.max(...row)));
  }
  if (output) writeNpy(output, logits);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`run.js: ${error.message}`);
  process.exitCode = 1;
});
