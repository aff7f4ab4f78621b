// @ts-check
/** The page: what is looked at, the loop, the drawing, and what is said about it. */
import { openFinder, openPose, openRuntime } from './nets.js';
import { Follower, confidence, lookAtEveryone } from './people.js';

/** @typedef {import('./people.js').Person} Person */
/** Okabe and Ito's colours, which colour-blind people tell apart. */
const COLOURS = ['#56b4e9', '#e69f00', '#009e73', '#f0e442', '#cc79a7', '#d55e00', '#0072b2'];
const [SHOWN, WIDEST, LARGEST] = [0.2, 1600, 16e6];
/** The share of pixels that the finder has for a frame: mainly people below 0.15 of its height are found less often. */
const LIVE_SHARE = 0.5;
const [view, status, numbers, mirror, model, file, camera, turn, sample, stop] =
  ['view', 'status', 'numbers', 'mirror', 'model', 'file', 'camera', 'turn', 'sample', 'stop']
    .map((id) => /** @type {any} */ (document.getElementById(id)));
const video = /** @type {any} */ (Object.assign(document.createElement('video'), { muted: true, playsInline: true }));
const pen = view.getContext('2d');
const reader = /** @type {any} */ (document.createElement('canvas').getContext('2d', { willReadFrequently: true }));

/** @type {any} */ let site;
/** @type {Awaited<ReturnType<typeof openRuntime>>} */ let runtime;
/** @type {Awaited<ReturnType<typeof openFinder>>} */ let find;
/** @type {Awaited<ReturnType<typeof openPose>>} */ let pose;
/** @type {Follower | null} */ let follower = null;
/** @type {{picture: ImageBitmap, found: Person[], bones: number[][]} | null} */ let shown = null;
/** Of these, `current` goes up with all that begins; what has an older number is over. */
let [isPhoto, facing, current] = [false, 'user', 0];

const say = (/** @type {string} */ words) => { status.textContent = words; };
const people = (/** @type {number} */ count) => (count === 1 ? '1 person' : `${count || 'No'} people`);
/** @param {ImageBitmap} picture @returns {ImageData} */
function read(picture) {
  Object.assign(reader.canvas, { width: picture.width, height: picture.height });
  reader.drawImage(picture, 0, 0);
  return reader.getImageData(0, 0, picture.width, picture.height);
}

/** A person, at the scale of the picture. @param {Person} person @param {number} scale @param {number[][]} bones */
function draw({ points, scores, box, number }, scale, bones) {
  const size = scale * Math.max(box[2] - box[0], box[3] - box[1]);
  const [path, line] = [new Path2D(), Math.min(8, Math.max(2, 0.012 * size))];
  const at = points.map((place) => place.map((v) => (v + 0.5) * scale));
  if (mirror.checked) at.forEach((place) => { place[0] = view.width - place[0]; });
  const isSure = (/** @type {number[]} */ bone) => bone.every((k) => scores[k] >= SHOWN);
  for (const [a, b] of bones.filter(isSure)) path.addPath(new Path2D(`M ${at[a]} L ${at[b]}`));
  for (const [x, y] of at.filter((_, k) => scores[k] >= SHOWN)) {
    path.moveTo(x + line / 2, y);
    path.arc(x, y, line / 2, 0, 7);
  }
  for (const [strokeStyle, lineWidth] of [['#101018', 2 * line], [COLOURS[(number - 1) % COLOURS.length], line]]) {
    Object.assign(pen, { strokeStyle, lineWidth, lineCap: 'round' }).stroke(path);
  }
}

/** Show a picture with people on it, and say who is there. @param {ImageBitmap} picture @param {Person[]} found */
function show(picture, found, words = '', /** @type {{bones: number[][]}} */ { bones } = pose.config) {
  if (shown && shown.picture !== picture) shown.picture.close();
  shown = { picture, found, bones };
  const scale = Math.min(1, WIDEST / Math.max(picture.width, picture.height));
  [view.width, view.height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  if (mirror.checked) pen.setTransform(-1, 0, 0, 1, view.width, 0);
  pen.drawImage(picture, 0, 0, view.width, view.height);
  pen.resetTransform();
  found.forEach((person) => draw(person, scale, bones));
  const shares = found.map((p) => `${Math.round(100 * Math.min(1, confidence(p.scores)))} %`).join(', ');
  const summary = found.length ? `${people(found.length)}, confidence ${shares}.` : 'Nobody.';
  view.setAttribute('aria-label', summary);
  if (words) numbers.textContent = `${summary} ${words} ${runtime.words}.`;
  document.dispatchEvent(new CustomEvent('people', { detail: { people: found, picture } }));
}

/** End what is being looked at. @returns {number} the number of what begins now */
function begin() {
  video.pause();
  video.srcObject?.getTracks().forEach((/** @type {MediaStreamTrack} */ track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute('src');
  // without its value the same file can be chosen again
  [stop.disabled, turn.hidden, isPhoto, follower, file.value] = [true, true, false, null, ''];
  return ++current;
}

/** Everyone in a photo. @param {ImageBitmap} picture */
async function lookAtPhoto(picture) {
  const mine = ++current;
  isPhoto = true;
  say('Looking for people…');
  show(picture, []);
  await new Promise((done) => { setTimeout(done, 30); }); // so that it is seen
  const [start, image, { min_size }] = [performance.now(), read(picture), site.limits];
  const boxes = (await find(image)).filter(({ box: [x1, y1, x2, y2] }) => Math.max(x2 - x1, y2 - y1) >= min_size);
  const found = await lookAtEveryone(pose, image, boxes, site.limits);
  if (mine !== current) return;
  show(picture, found, `${((performance.now() - start) / 1000).toFixed(2)}\u00a0seconds.`);
  say(`${people(found.length)} found.`);
}

/** Everyone in the video that plays, until it ends. @param {string} words */
async function followVideo(words) {
  const mine = current;
  stop.disabled = false;
  // what begins before it plays has ended it, which is no failure
  await video.play().catch((/** @type {Error} */ error) => { if (mine === current) throw error; });
  let [frame, before, between, said] = [0, performance.now(), 0, -1];
  while (mine === current) {
    await new Promise((done) => {
      Object.assign(video, { onended: done, onpause: done });
      if (video.ended) done(null);
      else (video.requestVideoFrameCallback?.bind(video) ?? requestAnimationFrame)(done);
    });
    if (mine !== current || video.ended) break;
    const [picture, time, net] = [await createImageBitmap(video), video.currentTime, pose];
    const [image, who] = [read(picture), (follower ??= new Follower(site, net.config))];
    if (who.due(frame++)) who.meet(await find(image, LIVE_SHARE));
    const poses = await net.look(image, who.people.map(({ box }) => box));
    const now = performance.now();
    [between, before] = [between ? 0.9 * between + 0.1 * (now - before) : now - before, now];
    if (who === follower) { // neither another model nor anything else has begun
      const found = who.update(poses, picture.width, picture.height, time);
      show(picture, found, `${(1000 / between).toFixed(1)} frames per second.`);
      if (said !== found.length) say(`${words} ${people(said = found.length)}.`);
    }
  }
  if (mine !== current) return;
  begin();
  say('The video has ended.');
}

/** A photo or a video of the visitor's. @param {Blob} chosen @param {string} name */
async function open(chosen, name) {
  const mine = begin();
  let picture = await createImageBitmap(chosen).catch(() => null);
  const resizeWidth = picture ? Math.round(Math.sqrt((LARGEST * picture.width) / picture.height)) : 0;
  if (picture && resizeWidth < picture.width) picture = await createImageBitmap(picture, { resizeWidth });
  if (picture && mine === current) await lookAtPhoto(picture);
  if (picture || mine !== current) return;
  video.src = URL.createObjectURL(chosen);
  const plays = await new Promise((done) => {
    Object.assign(video, { onloadeddata: () => done(video.videoWidth > 0), onerror: () => done(false) });
  });
  if (mine !== current) return;
  if (plays) await followVideo('The video plays.');
  else say(`${name} is neither a photo nor a video that this browser can read.`);
}

async function openCamera() {
  const mine = begin();
  if (!navigator.mediaDevices) return say('Browsers give the camera to pages on https or on this machine only.');
  say('Asking for the camera…');
  try {
    const wanted = { facingMode: facing, width: { ideal: 1280 }, height: { ideal: 720 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    if (mine !== current) return stream.getTracks().forEach((track) => track.stop());
    video.srcObject = stream;
  } catch (/** @type {any} */ error) {
    const why = error.name === 'NotAllowedError' ? 'is not allowed: allow it in the address bar' : 'cannot be had';
    return say(`The camera ${why}. A photo or a video works without one.`);
  }
  mirror.checked = facing === 'user';
  const devices = await navigator.mediaDevices.enumerateDevices();
  turn.hidden = devices.filter(({ kind }) => kind === 'videoinput').length < 2;
  return followVideo('The camera is on.');
}

async function choose() {
  const config = site.models[model.selectedIndex];
  say(`Loading ${config.name}…`);
  config.opened ??= await openPose(runtime, config);
  if (config.name !== model.value) return; // another was chosen meanwhile
  [pose, follower] = [config.opened, null];
  say(`${config.name} is ready.`);
  if (isPhoto && shown) await lookAtPhoto(shown.picture);
}

/** Work that ends with a sentence if it fails. @param {() => any} work */
const told = (work) => () => Promise.resolve().then(work).catch((/** @type {Error} */ error) => {
  begin();
  say(`It failed: ${error.message}`);
});

camera.onclick = told(openCamera);
turn.onclick = told(() => { facing = facing === 'user' ? 'environment' : 'user'; return openCamera(); });
sample.onclick = told(async () => open(await (await fetch('sample.jpg')).blob(), 'The sample'));
file.onchange = told(() => file.files[0] && open(file.files[0], file.files[0].name));
stop.onclick = told(() => { begin(); say('Stopped.'); });
model.onchange = told(choose);
mirror.onchange = () => shown && show(shown.picture, shown.found, '', shown);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const dropped = event.dataTransfer?.files[0];
  if (dropped && !file.disabled) told(() => open(dropped, dropped.name))();
};

told(async () => {
  let all = 0;
  // of what is loaded before the page can be used
  const progress = (/** @type {number} */ n) => camera.disabled && say(`Loading: ${((all += n) / 1e6).toFixed(0)} MB…`);
  site = await (await fetch('site.json')).json();
  runtime = await openRuntime(site.runtime, progress);
  find = await openFinder(runtime, site.finder);
  model.replaceChildren(...site.models.map((/** @type {any} */ { name }) => new Option(name)));
  await choose();
  [camera, file, sample, model].forEach((control) => { control.disabled = false; });
  say('Ready. Choose the camera, a photo or a video.');
})();
