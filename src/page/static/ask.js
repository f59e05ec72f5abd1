const SERVICE = '/jeex.persistence.v1.DatabaseService/';
const TIMEOUT_MS = 8_000;
const KEY = 'token';

/** The service answered, and refused. */
export class Refused extends Error {
  /** @param {Response} response @param {{message?: string, details?: unknown[]}} answer */
  constructor(response, answer) {
    super(answer.message || `the service answered with status ${response.status}`);
    /** Whether another token may help: the door's own refusals have no details. */
    this.wantsToken = response.status === 401 || (response.status === 403 && Boolean(answer.details?.length));
    this.unknown = response.status === 401;
  }
}

/** The service did not answer, or not in time, or what answered was not the service. */
export class Away extends Error {}

/** The reader's token, for as long as the tab lives. */
export const token = {
  get: () => sessionStorage.getItem(KEY),
  /** @param {string} text */
  keep: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

let skewMs = 0;

/** The service's clock, in milliseconds since the epoch: the reader's may be wrong. */
export const now = () => Date.now() + skewMs;

/** @param {string} method */
const send = async (method) => {
  const held = token.get();
  const response = await fetch(SERVICE + method, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(held && { authorization: `Bearer ${held}` }) },
    body: '{}',
    cache: 'no-store',
    redirect: 'error',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  return { response, answer: await response.json() };
};

/**
 * Calls a method of the database service, with the token if there is one.
 * @param {string} method
 * @returns {Promise<any>} its answer as Connect's JSON has it: no zeros, 64-bit numbers and durations as text
 * @throws Refused, Away
 */
export const ask = async (method) => {
  const { response, answer } = await send(method).catch((cause) => {
    throw new Away('it gave no answer', { cause });
  });
  const date = Date.parse(response.headers.get('date') ?? '');
  if (!Number.isNaN(date)) skewMs = date - Date.now();
  if (!response.ok) throw new Refused(response, answer);
  return answer;
};
