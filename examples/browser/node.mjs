// The same in Node.js: node node.mjs snn.onnx IMAGES.raw, which are float32 [3, 32, 32], one behind another.
import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web/wasm';
import { run } from './run.mjs';

const [model, images] = await Promise.all(process.argv.slice(2).map((name) => readFile(name)));
ort.env.wasm.numThreads = 1;
console.log(JSON.stringify(await run(ort, model, new Float32Array(new Uint8Array(images).buffer), [3, 32, 32])));
