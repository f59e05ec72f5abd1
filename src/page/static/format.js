/** What stands where the service knows nothing. */
export const UNKNOWN = 'not known';

const KIB = 1024;
const MINUTE = 60;
const HOUR = 3_600;
const DAY = 86_400;

const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const calendar = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });

/**
 * Connect's text of a Duration in seconds; undefined stays.
 * @param {string | undefined} text
 */
export const seconds = (text) => (text === undefined ? undefined : Number.parseFloat(text));

/**
 * A field that JSON leaves out when it is 0.
 * @param {string | number | undefined} value
 */
export const whole = (value) => Number(value ?? 0);

/** @param {number} value */
export const count = (value) => (Math.abs(value) < 100 && !Number.isInteger(value) ? fine : plain).format(value);

/** @param {number} value in seconds */
export const duration = (value) => {
  if (value === 0) return '0 ms';
  if (value < 1) return `${fine.format(Math.max(value * 1000, 0.01))} ms`;
  if (value < MINUTE) return `${fine.format(value)} s`;
  if (value < HOUR) return `${Math.floor(value / MINUTE)} min`;
  if (value < DAY) return both(Math.floor(value / HOUR), 'h', Math.floor((value % HOUR) / MINUTE), 'min');
  return both(Math.floor(value / DAY), 'd', Math.floor((value % DAY) / HOUR), 'h');
};

/** @param {number} large @param {string} unit @param {number} small @param {string} smaller */
const both = (large, unit, small, smaller) =>
  small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${smaller}`;

/** @param {number} value */
export const bytes = (value) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log(Math.max(value, 1)) / Math.log(KIB)), units.length - 1);
  return `${fine.format(value / KIB ** power)} ${units[power]}`;
};

/** @param {number} value 0 to 1 */
export const percent = (value) => `${(Math.floor(value * 1000) / 10).toFixed(1)} %`;

/** @type {Record<string, (value: number) => string>} */
const BY_UNIT = { ratio: percent, seconds: duration, bytes, count };

/** @param {number} value @param {string} unit as an alert names it */
export const measure = (value, unit) => (BY_UNIT[unit] ?? ((one) => `${count(one)} ${unit}`))(value);

/** @param {number} time in milliseconds since the epoch */
export const timeOfDay = (time) => clock.format(time);

/** @param {string} text RFC 3339 @param {number} now in milliseconds since the epoch */
export const ago = (text, now) => {
  const time = Date.parse(text);
  const passed = Math.max(0, Math.round((now - time) / 1000));
  return `${passed === 0 ? 'just now' : `${duration(passed)} ago`} (${calendar.format(time)})`;
};

/**
 * What a formatter makes of a value that may be unknown.
 * @template T @param {T | undefined} value @param {(value: T) => string} format
 */
export const known = (value, format) => (value === undefined ? UNKNOWN : format(value));
