/** What a call spent on the database, in milliseconds. */
export interface Timing {
  /** Waiting for a connection. */
  queueMs: number;
  /** From a statement's sending to its answer. */
  databaseMs: number;
}

export const noTiming = (): Timing => ({ queueMs: 0, databaseMs: 0 });

/**
 * As the header `server-timing` tells it (https://www.w3.org/TR/server-timing/), in milliseconds; and by which span the call
 * is found, as browsers' agents read it.
 * @param traceparent null for a call that is not recorded
 */
export const serverTiming = ({ queueMs, databaseMs }: Timing, totalMs: number, traceparent: string | null): string => {
  const spent = `queue;dur=${rounded(queueMs)}, db;dur=${rounded(databaseMs)}, total;dur=${rounded(totalMs)}`;
  return traceparent === null ? spent : `${spent}, traceparent;desc="${traceparent}"`;
};

const rounded = (ms: number): number => Math.round(ms * 1000) / 1000;
