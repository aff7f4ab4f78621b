// @ts-check
/** The networks: on a GPU by ONNX Runtime Web, else by this package's own kernels, which also do what is around. */

/** @typedef {import('./people.js').Box} Box */
const [HELPER, STACK, PROVIDERS] = [new URL('helper.js', import.meta.url), 2 ** 18, ['webgpu', 'wasm']];

/** @param {string} url @param {string | null} integrity @param {(bytes: number) => void} progress */
async function get(url, integrity, progress) {
  const answer = await fetch(url, integrity ? { integrity } : {});
  if (!answer.ok || !answer.body) throw new Error(`${url} cannot be had (${answer.status}).`);
  const count = new TransformStream({ transform: (part, out) => { progress(part.length); out.enqueue(part); } });
  return new Response(answer.body.pipeThrough(count), { headers: { 'Content-Type': 'text/javascript' } }).blob();
}

/**
 * The kernels, and the GPU where the browser has WebGPU for it.
 * @param {any} config `runtime` of site.json @param {(bytes: number) => void} progress
 */
export async function openRuntime({ address, files }, progress) {
  const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter().catch(() => null);
  // a GPU that the processor only plays is far slower than WebAssembly
  const engine = /[?&]engine=(webgpu|wasm)/.exec(location.search)?.[1]
    ?? (adapter && !adapter.info?.isFallbackAdapter ? 'webgpu' : 'wasm');
  /** @type {any} */ let ort = null;
  /** @type {Promise<any>} */ let busy = Promise.resolve();
  /** ONNX Runtime Web fails where one call begins before another has ended. @param {() => any} work */
  const inTurn = (work) => { busy = busy.catch(() => {}).then(work); return busy; };
  if (engine === 'webgpu') {
    const [script, binary] = await Promise.all(files.map((/** @type {[string, string | null]} */ [name, hash]) =>
      get(new URL(address + name, document.baseURI).href, hash, progress)));
    ort = await import(URL.createObjectURL(script));
    Object.assign(ort.env.wasm, { wasmBinary: await binary.arrayBuffer(), numThreads: 1 });
  }
  const load = async (/** @type {string} */ file) => (await get(file, null, progress)).arrayBuffer();
  // threads need memory that they share, which browsers give to pages that come with two headers
  const threads = crossOriginIsolated && !ort ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  const memory = threads > 1 ? new WebAssembly.Memory({ initial: 64, maximum: 4096, shared: true }) : null;
  const code = await WebAssembly.compile(await load(memory ? 'threads.wasm' : 'kernels.wasm'));
  const kernels = /** @type {any} */ (new WebAssembly.Instance(code, /** @type {any} */ ({ env: { memory } })).exports);
  kernels._initialize();
  for (let i = 1; i < threads; i++) new Worker(HELPER).postMessage([code, memory, kernels.allocate(STACK) + STACK, i]);
  const floats = (/** @type {[number, number]} */ ...place) => new Float32Array(kernels.memory.buffer, ...place);
  /** Memory of the kernels. @param {Uint8Array | Uint8ClampedArray} bytes */
  const put = (bytes) => {
    const at = kernels.allocate(bytes.length);
    new Uint8Array(kernels.memory.buffer, at, bytes.length).set(bytes);
    return at;
  };

  /** @param {any} config of a network in site.json */
  const open = async ({ name, maps: count, mean, std }) => {
    const content = new Uint8Array(await load(`${name}.${ort ? 'onnx' : 'bin'}`));
    const session = ort && await inTurn(() => ort.InferenceSession.create(content, { executionProviders: PROVIDERS }));
    let network = 0;
    try {
      if (!session) network = kernels.open_network(put(content), content.length);
    } catch (error) { throw new Error(`${name}.bin is damaged: write the page anew.`, { cause: error }); }
    /**
     * What `read` makes of the network's maps of what `fill` makes of a picture.
     * @template R @param {ImageData} image @param {[number, number, number]} shape batch, height and width of the input
     * @param {(picture: number, images: number) => void} fill
     * @param {(maps: number, rows: number) => R} read the maps, with room for 5000 numbers or 3 for each map
     */
    return async ({ data }, [batch, height, width], fill, read) => {
      const [pixels, all] = [batch * height * width, batch * count];
      const places = [3 * pixels, (count * pixels) / 16, Math.max(5000, 3 * all)].map((n) => kernels.allocate(4 * n));
      const picture = put(data);
      try {
        fill(picture, places[0]);
        kernels.normalise(places[0], batch, height * width, ...mean, ...std);
        if (session) {
          const images = new ort.Tensor('float32', floats(places[0], 3 * pixels).slice(), [batch, 3, height, width]);
          const { heatmaps } = await inTurn(() => session.run({ images }));
          floats(places[1], heatmaps.data.length).set(heatmaps.data);
        } else kernels.run(network, places[0], batch, height, width, places[1], threads);
        return read(places[1], places[2]);
      } finally {
        [...places, picture].forEach(kernels.release);
      }
    };
  };
  return { open, kernels, floats, words: ort ? 'WebGPU' : `WebAssembly, threads: ${threads}` };
}

/** Everyone in a picture, on black in an input of about its shape, as `input_shape` of Python. @param {any} runtime */
export async function openFinder(runtime, /** @type {any} */ config) {
  const [run, own] = [await runtime.open(config), (config.size[0] * config.size[1]) / 32 ** 2];
  const { fit_picture, find_people } = runtime.kernels;
  /**
   * @param {ImageData} image @param {number} share of its own input's pixels, the most that the picture's has
   * @returns {Promise<{box: Box, score: number}[]>} the highest score first
   */
  return async (image, share = 1, cells = share * own) => {
    const [least, most] = [image.width, image.height].sort((a, b) => a - b);
    const short = Math.round(Math.sqrt((cells * least) / most)) || 1;
    const sides = [32 * short, 32 * (Math.floor(cells / short) || 1)];
    const shape = [image.width, image.height, ...(image.height <= image.width ? sides : sides.reverse())];
    const fill = (/** @type {number} */ picture, /** @type {number} */ input) => fit_picture(picture, ...shape, input);
    return run(image, [1, ...shape.slice(2)], fill, (/** @type {number} */ maps, /** @type {number} */ rows) => {
      const found = runtime.floats(rows, 5 * find_people(maps, ...shape, config.min_score, rows));
      return Array.from({ length: found.length / 5 }, (_, i) =>
        ({ box: Array.from(found.slice(5 * i, 5 * i + 4)), score: found[5 * i + 4] }));
    });
  };
}

/** From the height of a maximum to the chance that the keypoint is right: a sum of ramps. @param {number} peak */
const chanceOf = (peak, /** @type {any} */ { peaks, chances }) =>
  chances.reduce((/** @type {number} */ sum, /** @type {number} */ chance, /** @type {number} */ i) => sum
    + (chance - chances[i - 1]) * Math.min(1, Math.max(0, (peak - peaks[i - 1]) / (peaks[i] - peaks[i - 1]))));

/** The poses of those who are in boxes. @param {any} runtime @param {any} config of `models` in site.json */
export async function openPose(runtime, config) {
  const [run, [height, width], count] = [await runtime.open(config), config.size, config.maps];
  const { crop_picture, find_keypoints } = runtime.kernels;
  /**
   * @param {ImageData} image @param {Box[]} boxes
   * @param {number[] | null} order of the keypoints in the mirrored crops, which are looked at then
   */
  const look = async (image, boxes, order = null) => {
    if (!boxes.length) return [];
    // the box in the middle, in the input's shape: pixel index of the picture = step * that of the crop + left, top
    const views = boxes.map(([x1, y1, x2, y2]) => {
      const step = Math.max((x2 - x1) / width, (y2 - y1) / height) * config.padding;
      const [left, top] = [(x1 + x2 - step * width) / 2, (y1 + y2 - step * height) / 2];
      return order ? [-step, left + (width - 1) * step, step, top] : [step, left, step, top];
    });
    const fill = (/** @type {number} */ picture, /** @type {number} */ images) => views.forEach((view, i) =>
      crop_picture(picture, image.width, image.height, ...view, height, width, images + 12 * i * height * width));
    return run(image, [boxes.length, height, width], fill, (/** @type {number} */ maps, /** @type {number} */ rows) => {
      find_keypoints(maps, boxes.length * count, height / 4, width / 4, rows);
      const found = runtime.floats(rows, 3 * boxes.length * count);
      return views.map(([across, start, step, top], i) => {
        const places = Array.from({ length: count }, (_, k) => 3 * (i * count + (order ? order[k] : k)));
        const points = places.map((p) => [4 * found[p] * across + start, 4 * found[p + 1] * step + top]);
        const peaks = places.map((p) => found[p + 2]);
        return { points, scores: config.score_map ? peaks.map((peak) => chanceOf(peak, config.score_map)) : peaks };
      });
    });
  };
  return { look, config };
}
