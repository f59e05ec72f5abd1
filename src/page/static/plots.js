import { now } from './ask.js';
import { byId, fill, make, say } from './dom.js';
import { count, duration, percent, seconds, timeOfDay, UNKNOWN, whole } from './format.js';
import { TONES, WORDS } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
const HOUR_MS = 3_600_000;
/** The least that is drawn, so that a service's first samples do not fill the whole width. */
const LEAST_MS = 300_000;
const WIDTH = 300;
const HEIGHT = 72;
/** Samples further apart than this many of their usual distance have a gap between them: the service was away. */
const GAP = 2.5;

/**
 * @typedef {Record<string, any>} Sample of GetHealthHistory
 * @typedef {{ name: string, of: (sample: Sample) => number | undefined }} Line
 * @typedef {{ title: string, lines: Line[], format: (value: number) => string, floor?: number, top?: number,
 *   limit?: (sample: Sample) => number | undefined }} Plot `floor` and `top`: where the scale begins, and what it reaches
 *   at least
 */

/** @type {Plot[]} */
const PLOTS = [
  {
    title: 'Calls per second',
    format: count,
    top: 1,
    lines: [
      { name: 'calls', of: (sample) => sample.callsPerSecond ?? 0 },
      { name: 'errors', of: (sample) => sample.errorsPerSecond ?? 0 },
    ],
  },
  {
    title: 'Latency of calls',
    format: duration,
    top: 0.01,
    lines: [
      { name: 'p95', of: (sample) => seconds(sample.p95) },
      { name: 'p50', of: (sample) => seconds(sample.p50) },
    ],
  },
  {
    title: 'Service pool',
    format: count,
    top: 4,
    limit: (sample) => whole(sample.poolLimit) || undefined,
    lines: [
      { name: 'in use', of: (sample) => whole(sample.poolAcquired) },
      { name: 'waiting', of: (sample) => whole(sample.poolWaiting) },
    ],
  },
  {
    title: 'Connections',
    format: count,
    top: 10,
    limit: (sample) => numberOf(sample.connectionLimit),
    lines: [{ name: 'open', of: (sample) => numberOf(sample.connections) }],
  },
  {
    title: 'PostgreSQL',
    format: count,
    top: 1,
    lines: [
      { name: 'tx/s', of: (sample) => sample.transactionsPerSecond },
      { name: 'queries/s', of: (sample) => sample.queriesPerSecond },
    ],
  },
  {
    title: 'Cache hits',
    format: percent,
    floor: 0.9,
    top: 1,
    lines: [{ name: 'ratio', of: (sample) => sample.cacheHitRatio }],
  },
];

/** @param {string | undefined} text */
const numberOf = (text) => (text === undefined ? undefined : Number(text));

/** @param {string} name @param {Record<string, string | number>} attributes */
const draw = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  return node;
};

/** @type {Sample[]} */
let kept = [];

/** How much time is drawn: the hour, or as much of it as there are samples of. @param {number} end */
const spanOf = (end) => Math.min(HOUR_MS, Math.max(LEAST_MS, end - (kept[0]?.time ?? end)));

/** @param {number} time @param {number} end */
const across = (time, end) => Math.round((1 - (end - time) / spanOf(end)) * WIDTH * 10) / 10;

/** Two is the least that has a distance. @param {readonly { time: number }[]} samples */
const usualDistance = (samples) => {
  const distances = samples.slice(1).map(({ time }, index) => time - samples[index].time);
  return distances.sort((one, other) => one - other)[Math.floor(distances.length / 2)] ?? HOUR_MS;
};

/**
 * The points of a line in pieces, one wherever nothing was known, or nothing measured, for a while.
 * @param {readonly Sample[]} samples @param {Line} line @returns {{ time: number, value: number }[][]}
 */
const piecesOf = (samples, line) => {
  const longest = usualDistance(/** @type {any} */ (samples)) * GAP;
  /** @type {{ time: number, value: number }[][]} */
  const pieces = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const sample of samples) {
    const value = line.of(sample);
    if (value === undefined) {
      last = Number.NEGATIVE_INFINITY;
      continue;
    }
    if (sample.time - last > longest) pieces.push([]);
    pieces.at(-1)?.push({ time: sample.time, value });
    last = sample.time;
  }
  return pieces;
};

/** @param {Plot} plot @param {readonly Sample[]} samples */
const scaleOf = ({ lines, floor = 0, top = 0, limit }, samples) => {
  const values = lines.flatMap((line) => samples.flatMap((sample) => line.of(sample) ?? []));
  const bottom = Math.min(floor, ...values);
  const highest = Math.max(top, ...values);
  const allowed = samples.at(-1) && limit?.(/** @type {Sample} */ (samples.at(-1)));
  // A limit that is far away would press the line flat.
  const shown = allowed !== undefined && highest * 2 >= allowed ? allowed : undefined;
  const height = Math.max(highest, shown ?? 0);
  const down = (/** @type {number} */ value) =>
    Math.round((1 - (value - bottom) / (height - bottom || 1)) * (HEIGHT - 4) * 10) / 10 + 2;
  return { down, shown, bottom, height, allowed };
};

/** @param {{ time: number, value: number }[]} piece @param {number} end @param {(value: number) => number} down */
const pathOf = (piece, end, down) => {
  const points = piece.map(({ time, value }) => `${across(time, end)} ${down(value)}`);
  // A single point would be a line without length, which nobody sees.
  return `M${points.join('L')}${points.length === 1 ? 'h1' : ''}`;
};

/** @param {Plot} plot @param {readonly Sample[]} samples @param {number} end */
const shapesOf = (plot, samples, end) => {
  const scale = scaleOf(plot, samples);
  const shapes = plot.lines.flatMap((line, index) => {
    const pieces = piecesOf(samples, line).map((piece) => ({ piece, path: pathOf(piece, end, scale.down) }));
    const strokes = pieces.map(({ path }) => draw('path', { class: `line line-${index}`, d: path }));
    if (index > 0) return strokes;
    const areas = pieces.map(({ piece, path }) => {
      const [first, last] = [piece[0], piece[piece.length - 1]].map(({ time }) => across(time, end));
      return draw('path', { class: 'area', d: `${path}L${last} ${HEIGHT}L${first} ${HEIGHT}Z` });
    });
    return [...areas, ...strokes];
  });
  if (scale.shown !== undefined) {
    const y = scale.down(scale.shown);
    shapes.push(draw('line', { class: 'limit', x1: 0, x2: WIDTH, y1: y, y2: y }));
  }
  return { ...scale, shapes: shapes.reverse() };
};

/** What a plot says of a sample. @param {Plot} plot @param {Sample | undefined} sample */
const reading = ({ lines, format }, sample) =>
  lines.map((line) => {
    const value = sample && line.of(sample);
    return { name: line.name, value: value === undefined ? UNKNOWN : format(value) };
  });

/** @param {Element} node @param {Plot} plot @param {Sample | undefined} sample @param {string} when */
const read = (node, plot, sample, when) => {
  const create = () => make('span', {}, make('b'), ' ', make('i'));
  fill(node.querySelector('.reading') ?? node, reading(plot, sample), create, (entry, { name, value }) => {
    say(entry.children[0], value);
    say(entry.children[1], name);
  });
  say(/** @type {Element} */ (node.querySelector('.when')), when);
};

/** @param {Plot} plot */
const makePlot = (plot) => {
  const svg = draw('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
  const head = make('figcaption', {}, make('h3', {}, plot.title), make('p', { class: 'reading' }));
  const foot = make('p', { class: 'axis' }, make('span', { class: 'range' }), make('span', { class: 'when' }));
  const node = make('figure', { class: 'plot' }, head, svg, foot);
  svg.addEventListener('pointermove', (/** @type {any} */ event) => {
    const { left, width } = svg.getBoundingClientRect();
    const end = now();
    const time = end - spanOf(end) * (1 - (event.clientX - left) / width);
    const distance = (/** @type {Sample} */ sample) => Math.abs(sample.time - time);
    const sample = kept.reduce((best, one) => (distance(one) < distance(best) ? one : best));
    read(node, plot, sample, timeOfDay(sample.time));
  });
  svg.addEventListener('pointerleave', () => read(node, plot, kept.at(-1), ''));
  return node;
};

/** @param {Element} node @param {Plot} plot @param {number} end */
const updatePlot = (node, plot, end) => {
  const svg = /** @type {SVGElement} */ (node.querySelector('svg'));
  const { shapes, bottom, height, allowed } = shapesOf(plot, kept, end);
  svg.replaceChildren(...shapes);
  const range = `${plot.format(bottom)} to ${plot.format(height)}${allowed ? ` · limit ${plot.format(allowed)}` : ''}`;
  say(/** @type {Element} */ (node.querySelector('.range')), range);
  const figures = reading(plot, kept.at(-1)).map(({ name, value }) => `${name} ${value}`);
  svg.setAttribute(
    'aria-label',
    `${plot.title} over ${duration(Math.round(spanOf(end) / 1000))}, ${range}; last: ${figures.join(', ')}`,
  );
  if (!node.querySelector('svg:hover')) read(node, plot, kept.at(-1), '');
};

/** The stretches of the hour that had one state each. @param {number} end */
const stretchesOf = (end) => {
  const longest = usualDistance(/** @type {any} */ (kept)) * GAP;
  /** @type {{ status: string, from: number, to: number }[]} */
  const stretches = [];
  kept.forEach(({ time, status }, index) => {
    const to = Math.min(kept[index + 1]?.time ?? end, time + longest);
    const last = stretches.at(-1);
    if (last && last.status === status && last.to === time) last.to = to;
    else stretches.push({ status, from: time, to });
  });
  return stretches;
};

/** The state over the hour, as a band. @param {number} end */
const updateBand = (end) => {
  const stretches = stretchesOf(end);
  const bars = stretches.map(({ status, from, to }) => {
    const x = Math.max(0, across(from, end));
    return draw('rect', { class: TONES[status] ?? '', x, width: Math.max(0.5, across(to, end) - x), y: 0, height: 8 });
  });
  const svg = draw('svg', { viewBox: `0 0 ${WIDTH} 8`, preserveAspectRatio: 'none', role: 'img' });
  const told = stretches.map(({ status, from }) => `${WORDS[status] ?? UNKNOWN} from ${timeOfDay(from)}`);
  svg.setAttribute('aria-label', `State over time: ${told.join(', ')}`);
  svg.append(...bars);
  const axis = make(
    'figcaption',
    { class: 'axis' },
    make('span', {}, `${duration(Math.round(spanOf(end) / 1000))} ago`),
    make('span', {}, 'now'),
  );
  byId('hour').replaceChildren(svg, axis);
};

/**
 * Draws the samples of the last hour.
 * @param {readonly Sample[]} samples of GetHealthHistory
 */
export const showPlots = (samples) => {
  const end = now();
  kept = samples
    .map((sample) => ({ ...sample, time: Date.parse(sample.time) }))
    .filter(({ time }) => time > end - HOUR_MS);
  byId('plots-none').hidden = kept.length > 0;
  byId('plots').hidden = kept.length === 0;
  if (kept.length === 0) {
    byId('hour').replaceChildren();
    return;
  }
  const parent = byId('plots');
  if (parent.children.length === 0) parent.append(...PLOTS.map(makePlot));
  PLOTS.forEach((plot, index) => {
    updatePlot(parent.children[index], plot, end);
  });
  updateBand(end);
};
