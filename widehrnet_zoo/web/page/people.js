// @ts-check
/**
 * Who is where: each person once, followed from frame to frame, smoothed. The arithmetic and its settings are those of
 * the Python package: `inference/people.py`, `inference/photo.py`, `video/follow.py` and `video/one_euro.py` say where
 * they come from.
 *
 * @typedef {[number, number, number, number]} Box x1, y1, x2, y2 in pixels of the picture
 * @typedef {{points: number[][], scores: number[]}} Pose keypoints in pixels of the picture, and their chances
 * @typedef {Pose & {box: Box, boxScore: number, number: number}} Person with a number that stays from frame to frame
 * @typedef {{time: number, points: number[][], speeds: number[][]}} Smoothed
 * @typedef {Person & {frames: number, unseen: number, last: Smoothed | null}} Followed
 */
const [SURE, UNSURE, ENOUGH, MARGIN, LEAST, AGREE, WORTH, LOOKS, GRID] = [0.2, 0.1, 3, 0.1, 1 / 16, 0.3, 0.7, 5, 8];

/** @param {number[]} values */
const mean = (values) => values.reduce((a, b) => a + b, 0) / (values.length || 1);
/** Mean of keypoint scores, each weighted by itself: hidden ones hardly count. @param {number[]} scores */
export const confidence = (scores) => mean(scores.map((s) => s ** 2)) / (mean(scores) || 1);
/** As `PoseResult.person_scores`. @param {{scores: number[], boxScore: number}} person */
const personScore = ({ scores, boxScore }) => Math.sqrt(boxScore) * confidence(scores);
const within = (/** @type {number} */ v, most = 1) => Math.min(Math.max(v, 1e-3), most);
/** As `person_worth`. @param {{scores: number[], boxScore: number, box: Box}} person @param {any} model */
function worthOf({ scores, boxScore, box }, { chance }) {
  if (!chance) return personScore({ scores, boxScore });
  const [sorted, half] = [[...scores].sort((a, b) => a - b), scores.length / 2];
  const best = within(mean(sorted.slice(-3)), 0.995);
  const median = within(mean(sorted.slice(Math.ceil(half) - 1, Math.floor(half) + 1)), 0.995);
  const figures = [within(boxScore), within((box[3] - box[1]) / chance.tall), best / (1 - best), median / (1 - median)];
  return 1 / (1 + Math.exp(-figures.reduce((sum, v, i) => sum + Math.log(v) * chance.weights[i], chance.intercept)));
}
/** @param {Box} box */
const area = ([x1, y1, x2, y2]) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
/** @param {Box} a @param {Box} b */
function iou(a, b) {
  const shared = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return shared / Math.max(area(a) + area(b) - shared, 1e-9);
}

/** OKS of one keypoint. @param {number[]} a @param {number[]} b @param {number} size @param {number} sigma */
const similarity = (a, b, size, sigma) =>
  Math.exp(-((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (2 * Math.max(size, 1e-9) * (2 * sigma) ** 2));

/** How far two poses are of one person: OKS of what is sure in both. @param {Person} a @param {Person} b */
function likeness(a, b, /** @type {number[]} */ sigmas) {
  const all = [...sigmas.keys()];
  const both = all.filter((k) => a.scores[k] > SURE && b.scores[k] > SURE);
  const size = Math.min(area(a.box), area(b.box));
  return mean((both.length < ENOUGH ? all : both).map((k) => similarity(a.points[k], b.points[k], size, sigmas[k])));
}

/** Of those who are one person, the first. @template {Person} P @param {P[]} people @param {number[]} sigmas */
const distinct = (people, sigmas, /** @type {number} */ threshold) => people.reduce((kept, p) =>
  (kept.every((q) => likeness(p, q, sigmas) < threshold) ? [...kept, p] : kept), /** @type {P[]} */ ([]));

/** Where points begin and end, in x and in y. @param {number[][]} points */
const extent = (points) => [0, 1].map((i) => [Math.min, Math.max].map((most) => most(...points.map((p) => p[i]))));

/** A closer box, around what was found. @param {Pose} pose @param {ImageData} image @returns {Box | null} */
function closerBox({ points, scores }, { width, height }, /** @type {number} */ least) {
  if (scores.filter((s) => s > SURE).length < ENOUGH) return null;
  const [[x1, x2], [y1, y2]] = extent(points.filter((_, k) => scores[k] > UNSURE)).map(([low, high], i) =>
    [Math.max(low - MARGIN * (high - low), 0), Math.min(high + MARGIN * (high - low), i ? height : width)]);
  return Math.min(x2 - x1, y2 - y1) < 2 || Math.max(x2 - x1, y2 - y1) < least ? null : [x1, y1, x2, y2];
}

/** As `merge_looks`. @param {Person} p @param {Pose} q @param {Box} closer @param {number[]} sigmas */
function merge(p, q, closer, sigmas) {
  const box = confidence(q.scores) < confidence(p.scores) ? p.box : closer;
  const agree = q.points.map((place, k) => similarity(place, p.points[k], area(box), sigmas[k]) > AGREE);
  const part = q.scores.map((s, k) => (agree[k] ? s / (s + p.scores[k] || 1) : Number(s > p.scores[k])));
  const scores = q.scores.map((s, k) => (agree[k] ? (s + p.scores[k]) / 2 : Math.abs(s - p.scores[k])));
  return { ...p, box, scores, points: p.points.map((at, k) => at.map((v, i) => v + part[k] * (q.points[k][i] - v))) };
}

/**
 * Those who are likely enough to be somebody, each person once, the likeliest first. @param {Person[]} people
 * @param {any} limits @param {any} model @param {number[]} least for the likeliest, and for others where it is reached
 */
function likely(people, limits, model, least) {
  const judged = people.map((p) => ({ ...p, worth: worthOf(p, model), whole: p.boxScore * mean(p.scores) }));
  const enough = least[Number(judged.some(({ worth }) => worth >= least[0]))];
  const sure = judged.filter(({ worth }) => worth >= enough).sort((a, b) => b.whole - a.whole);
  return distinct(sure, model.sigmas, limits.same_person).sort((a, b) => b.worth - a.worth);
}

/** @param {(Box | null)[]} boxes @returns {any[]} */
const onGrid = (boxes) => boxes.flatMap((box) => (box ? [box.map((v) => Math.round(GRID * v) / GRID)] : []));

/**
 * The people in a photo, the surest first: looked at once, and the likeliest again, mirrored, in a closer box.
 * @param {any} net @param {ImageData} image @param {{box: Box, score: number}[]} found
 */
export async function lookAtEveryone({ look, config }, image, found, /** @type {any} */ limits) {
  const poses = await look(image, onGrid(found.map(({ box }) => box)));
  const people = found.map(({ box, score }, i) => ({ ...poses[i], box, boxScore: score }));
  const first = likely(people, limits, config, Array(2).fill(WORTH * config.least_scores[0]));
  const closer = first.map((p, i) => (i < LOOKS ? closerBox(p, image, config.size[0] * LEAST) : null));
  const second = await look(image, onGrid(closer), config.flip_order);
  const both = first.map((p, i) => (closer[i] ? merge(p, second.shift(), closer[i], config.sigmas) : p));
  return likely(both, limits, config, config.least_scores).map((p) => (config.chance ? { ...p, boxScore: p.worth } : p))
    .sort((a, b) => personScore(b) - personScore(a)).map((p, i) => ({ ...p, number: i + 1 }));
}

/** The 1 euro filter. @param {Smoothed | null} last @param {number[][]} points @returns {Smoothed} */
function oneEuro(last, points, /** @type {number} */ time, /** @type {number} */ scale, /** @type {any} */ config) {
  if (!last) return { time, points, speeds: points.map((p) => p.map(() => 0)) };
  const step = time - last.time;
  if (step <= 0) return last;
  const weight = (/** @type {number} */ cutoff) => 1 / (1 + 1 / (2 * Math.PI * cutoff * step));
  const speeds = last.speeds.map((speed, k) => speed.map((v, i) =>
    v + weight(config.derivative_cutoff) * ((points[k][i] - last.points[k][i]) / step - v)));
  const cutoffs = speeds.map((speed) => config.min_cutoff + (config.beta * Math.hypot(...speed)) / scale);
  const smooth = last.points.map((p, k) => p.map((v, i) => v + weight(cutoffs[k]) * (points[k][i] - v)));
  return { time, speeds, points: smooth };
}

/** People of a video or a camera, from frame to frame. */
export class Follower {
  /** @param {any} site site.json @param {any} model of its models */
  constructor({ follow, smooth }, model) {
    this.config = follow;
    this.smooth = smooth;
    this.model = model;
    this.met = 0;
    /** @type {Followed[]} */
    this.people = [];
  }

  /** Whether the finder is to look at a frame: every few frames, more often while somebody is lost. */
  due(/** @type {number} */ frame) {
    const lost = this.people.some((p) => p.unseen) && frame % 3 === 0;
    return lost || !this.people.length || frame % this.config.detect_every === 0;
  }

  /** Add those found people who are not followed yet. @param {{box: Box, score: number}[]} found */
  meet(found) {
    for (const { box, score } of found) {
      const nearest = [...this.people].sort((a, b) => iou(box, b.box) - iou(box, a.box))[0];
      const fresh = { box, boxScore: score, points: [], scores: [], frames: 0, unseen: 0, last: null };
      if (!nearest || iou(box, nearest.box) < this.config.same_box) this.people.push({ ...fresh, number: ++this.met });
      else if (nearest.unseen) Object.assign(nearest, { box, frames: 0 });
    }
  }

  /** Take in poses seen at the people's boxes, at a time in seconds. @param {Pose[]} poses @returns {Person[]} */
  update(poses, /** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ time) {
    const [before, seen] = [this.people.map((p) => p.box), /** @type {Followed[]} */ ([])];
    const [least] = this.model.least_scores;
    this.people.forEach((person, i) => {
      const box = this.boxOf(poses[i], person, [width, height]);
      // what the finder took for somebody is judged as in photos
      const isKnown = person.points.length || worthOf({ ...person, ...poses[i] }, this.model) >= least;
      if (box && isKnown) seen.push(Object.assign(person, poses[i], { box, unseen: 0, frames: person.frames + 1 }));
      else person.unseen += 1;
    });
    const kept = distinct(seen.sort((a, b) => a.number - b.number), this.model.sigmas, this.config.same_pose);
    const shown = kept.map((person) => {
      const [x1, y1, x2, y2] = before[this.people.indexOf(person)];
      person.last = oneEuro(person.last, person.points, time, Math.max(1, Math.hypot(x2 - x1, y2 - y1)), this.smooth);
      return { ...person, points: person.last.points };
    });
    // somebody never seen since being met was nobody
    const stays = (/** @type {Followed} */ p) => p.unseen && p.unseen <= this.config.patience && p.points.length;
    this.people = this.people.filter((p) => kept.includes(p) || stays(p));
    return shown;
  }

  /** Where to look for a person next. @param {Pose} pose @param {Followed} person @returns {Box | null} for nobody */
  boxOf({ points, scores }, person, /** @type {number[]} */ limits) {
    const { keypoint_score, min_score, growth } = this.config;
    const sure = points.filter((_, k) => scores[k] >= keypoint_score);
    if (mean(scores) < min_score || !sure.length) return null;
    const ends = extent(sure);
    // when keypoints drop out for a frame, the box must not collapse onto the rest
    const least = [0, 1].map((i) => (person.frames ? 0.8 * (person.box[i + 2] - person.box[i]) : 0));
    const [w, h] = ends.map(([low, high], i) => Math.max((high - low) * (1 + 2 * growth), least[i]));
    const [x, y] = ends.map(([low, high]) => (low + high) / 2);
    const longer = Math.max(w, h);
    if (longer < 4 || x < 0 || y < 0 || x > limits[0] || y > limits[1]) return null;
    const [right, down] = [w, h].map((side) => Math.max(side, longer / 4) / 2);
    return [x - right, y - down, x + right, y + down];
  }
}
