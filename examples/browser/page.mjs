// The page: the class of a picture that is chosen; or, with ?images=FILE in the address, of all images in that file,
// which are sent to where the page is from.
import * as ort from './node_modules/onnxruntime-web/dist/ort.wasm.min.mjs';
import { prepared, run } from './run.mjs';

const CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'];
const SHAPE = [3, 32, 32];
const status = document.querySelector('#status');
const bytes = async (name) => (await fetch(name)).arrayBuffer();

const asked = new URLSearchParams(location.search).get('images');
const send = (answer) => fetch('answer', { method: 'POST', body: JSON.stringify(answer) });

// Several threads need headers that a plain file server does not send.
ort.env.wasm.numThreads = 1;

async function main() {
  const model = await bytes('snn.onnx');
  if (asked) {
    status.textContent = 'Running …';
    await send(await run(ort, model, new Float32Array(await bytes(asked)), SHAPE));
    status.textContent = 'Done.';
    return;
  }
  status.textContent = 'Choose a picture; it does not leave this page.';
  document.querySelector('#picture').onchange = async ({ target }) => {
    const context = document.querySelector('#canvas').getContext('2d');
    context.drawImage(await createImageBitmap(target.files[0]), 0, 0, 32, 32);
    const pixels = prepared(context.getImageData(0, 0, 32, 32).data);
    const { top1, milliseconds } = await run(ort, model, pixels, SHAPE);
    status.textContent = `${CLASSES[top1[0]]}, in ${milliseconds[0].toFixed(1)} ms`;
  };
}

main().catch((error) => {
  status.textContent = `It cannot be run: ${error.message}`;
  if (asked) send({ error: error.message });
});
