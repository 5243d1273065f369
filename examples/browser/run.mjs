// Runs a spiking network on images, in whatever onnxruntime it is given: that of a browser or of Node.js.

// The top-1 class and the time in ms of each of the images, which lie in `pixels` one behind another.
export async function run(ort, model, pixels, shape) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
  const size = shape.reduce((product, length) => product * length, 1);
  const answer = { top1: [], milliseconds: [] };
  for (let start = 0; start < pixels.length; start += size) {
    const image = new ort.Tensor('float32', pixels.slice(start, start + size), [1, ...shape]);
    const before = performance.now();
    const outputs = await session.run({ [session.inputNames[0]]: image });
    answer.milliseconds.push(performance.now() - before);
    const logits = outputs[session.outputNames[0]].data;
    answer.top1.push(logits.indexOf(Math.max(...logits)));
  }
  return answer;
}

// A picture as the network takes it: RGBA bytes become channels, less their mean, over their deviation.
export function prepared(rgba, mean = [0.485, 0.456, 0.406], deviation = [0.229, 0.224, 0.225]) {
  const count = rgba.length / 4;
  const pixels = new Float32Array(3 * count);
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < count; i++) {
      pixels[channel * count + i] = (rgba[4 * i + channel] / 255 - mean[channel]) / deviation[channel];
    }
  }
  return pixels;
}
