// @ts-check
/** ONNX Runtime Web and the two networks, which have all their processing inside: pixels in, keypoints out. */

/** @typedef {import('./people.js').Box} Box */
/** @typedef {{start: number, weights: number[]}[]} Taps for each new pixel the old ones that make it */

/** @param {string} url @param {string | null} integrity @param {(bytes: number) => void} progress */
async function get(url, integrity, progress) {
  const answer = await fetch(url, integrity ? { integrity } : {});
  if (!answer.ok || !answer.body) throw new Error(`${url} cannot be had (${answer.status}).`);
  const [reader, parts] = [answer.body.getReader(), /** @type {Uint8Array<ArrayBuffer>[]} */ ([])];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    progress(part.value.length);
  }
  return new Blob(parts, { type: 'text/javascript' });
}

/**
 * The runtime, on the GPU where the browser has WebGPU for it.
 * @param {any} config `runtime` of site.json @param {(bytes: number) => void} progress
 */
export async function openRuntime({ address, files }, progress) {
  const query = new URLSearchParams(location.search);
  const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter().catch(() => null);
  // a GPU that the processor only plays is far slower than WebAssembly
  const best = adapter && !adapter.info?.isFallbackAdapter ? 'webgpu' : 'wasm';
  const engine = [query.get('engine') ?? ''].find((name) => name in files) ?? best;
  const [script, binary] = await Promise.all(files[engine].map((/** @type {[string, string | null]} */ [name, hash]) =>
    get(new URL(address + name, document.baseURI).href, hash, progress)));
  const ort = await import(URL.createObjectURL(script));
  const threads = crossOriginIsolated ? Number(query.get('threads') ?? Math.min(4, navigator.hardwareConcurrency)) : 1;
  Object.assign(ort.env.wasm, { wasmBinary: await binary.arrayBuffer(), numThreads: threads });
  /** @param {{file: string}} network @returns {Promise<(given: Record<string, any[]>) => Promise<Float32Array>>} */
  const open = async ({ file }) => {
    const content = new Uint8Array(await (await get(file, null, progress)).arrayBuffer());
    const session = await ort.InferenceSession.create(content, { executionProviders: [engine, 'wasm'] });
    const tensors = (/** @type {Record<string, any[]>} */ given) =>
      Object.fromEntries(Object.entries(given).map(([name, tensor]) => [name, new ort.Tensor(...tensor)]));
    return async (given) => Object.values(await session.run(tensors(given)))[0].data;
  };
  return { open, words: engine === 'webgpu' ? 'WebGPU' : `WebAssembly, ${threads} thread${threads > 1 ? 's' : ''}` };
}

/**
 * Linear interpolation: new pixel i lies at step * i + start, and takes the old ones nearer than `reach`.
 * @param {number} count @param {number} step @param {number} start @param {number} limit @returns {Taps}
 */
const tapsOf = (count, step, start, limit, reach = 1) => Array.from({ length: count }, (_, i) => {
  const place = step * i + start;
  const first = Math.max(0, Math.floor(place - reach) + 1);
  const length = Math.max(0, Math.min(limit, Math.ceil(place + reach)) - first);
  const weights = Array.from({ length }, (__, j) => 1 - Math.abs(first + j - place) / reach);
  // many pixels make one; where only two do, what lies outside the picture is black
  const sum = reach > 1 ? weights.reduce((a, b) => a + b, 0) : 1;
  return { start: Math.min(first, limit - 1), weights: weights.map((weight) => weight / sum) };
});

/**
 * RGB of a part of a picture in another size: each row first, then the columns. @param {ImageData} image
 * @param {Taps} columns @param {Taps} rows @param {Float32Array | Uint8ClampedArray} between what keeps the rows
 * @param {Uint8Array} out @param {number} at where it begins there @param {number} rest bytes between its rows
 */
function resample({ data, width }, columns, rows, between, out, at, rest = 0) {
  const [top, line] = [Math.min(...rows.map(({ start }) => start)), 3 * columns.length];
  const end = Math.max(...rows.map(({ start, weights }) => start + weights.length));
  for (let y = top, to = 0; y < end; y++) {
    for (const { start, weights } of columns) {
      for (let channel = 0; channel < 3; channel++) {
        let [sum, from] = [0, 4 * (y * width + start) + channel];
        for (let j = 0; j < weights.length; j++, from += 4) sum += weights[j] * data[from];
        between[to++] = sum;
      }
    }
  }
  for (const { start, weights } of rows) {
    for (let x = 0; x < line; x++) {
      let [sum, from] = [0.5, (start - top) * line + x];
      for (let j = 0; j < weights.length; j++, from += line) sum += weights[j] * between[from];
      out[at++] = sum;
    }
    at += rest;
  }
}

/** Everyone in a picture, on black in an input of about its shape, as `input_shape` of Python. @param {any} runtime */
export async function openFinder(runtime, /** @type {any} */ config) {
  const [run, cells] = [await runtime.open(config), (config.size[0] * config.size[1]) / 32 ** 2];
  /** @param {ImageData} image @returns {Promise<{box: Box, score: number}[]>} the highest score first */
  return async (image) => {
    const [least, most] = [image.width, image.height].sort((a, b) => a - b);
    const short = Math.round(Math.sqrt((cells * least) / most)) || 1;
    const sides = [32 * short, 32 * Math.floor(cells / short)];
    const [height, width] = image.height <= image.width ? sides : sides.reverse();
    const scale = Math.min(height / image.height, width / image.width);
    const [h, w] = [image.height, image.width].map((side) => Math.max(1, Math.round(side * scale)));
    const [top, left] = [Math.floor((height - h) / 2), Math.floor((width - w) / 2)];
    const [columns, rows] = [[w, image.width], [h, image.height]].map(([count, limit]) =>
      tapsOf(count, limit / count, (limit / count - 1) / 2, limit, Math.max(limit / count, 1 + 1e-9)));
    // what is between rows and columns is rounded, as in Python
    const [between, rgb] = [new Uint8ClampedArray(3 * w * image.height), new Uint8Array(3 * height * width)];
    resample(image, columns, rows, between, rgb, 3 * (top * width + left), 3 * (width - w));
    const boxes = await run({ images: ['uint8', rgb, [1, height, width, 3]] });
    return Array.from({ length: boxes.length / 6 }, (_, i) => {
      const box = Array.from(boxes.slice(6 * i + 1, 6 * i + 5), (v, j) =>
        Math.min(Math.max((v - (j % 2 ? top : left)) / scale, 0), j % 2 ? image.height : image.width));
      return { box: /** @type {Box} */ (box), score: boxes[6 * i + 5] };
    }).filter(({ box: [x1, y1, x2, y2], score }) => score >= config.min_score && x2 - x1 >= 1 && y2 - y1 >= 1)
      .sort((a, b) => b.score - a.score);
  };
}

/** The poses of those who are in boxes. @param {any} runtime @param {any} config of `models` in site.json */
export async function openPose(runtime, config) {
  const [run, [height, width], count] = [await runtime.open(config), config.size, config.keypoints.length];
  /**
   * @param {ImageData} image @param {Box[]} boxes
   * @param {number[] | null} order of the keypoints in the mirrored crops, which are looked at then
   */
  const look = async (image, boxes, order = null) => {
    if (!boxes.length) return [];
    const [rgb, line] = [new Uint8Array(3 * height * width * boxes.length), 3 * width * image.height];
    // the box in the middle, in the input's shape: pixel index of the picture = step * that of the crop + left, top
    const views = boxes.map(([x1, y1, x2, y2], i) => {
      const step = Math.max((x2 - x1) / width, (y2 - y1) / height) * config.padding;
      const [left, top] = [(x1 + x2 - step * width) / 2, (y1 + y2 - step * height) / 2];
      const [across, start] = order ? [-step, left + (width - 1) * step] : [step, left];
      const [columns, rows] = [tapsOf(width, across, start, image.width), tapsOf(height, step, top, image.height)];
      resample(image, columns, rows, new Float32Array(line), rgb, 3 * height * width * i);
      return { step, across, start, top };
    });
    const found = await run({ crops: ['uint8', rgb, [boxes.length, height, width, 3]] });
    return views.map(({ step, across, start, top }, i) => {
      const places = Array.from({ length: count }, (_, k) => 3 * (i * count + (order ? order[k] : k)));
      const rows = places.map((place) => found.slice(place, place + 3));
      return { points: rows.map(([x, y]) => [x * across + start, y * step + top]), scores: rows.map((row) => row[2]) };
    });
  };
  return { look, config };
}
