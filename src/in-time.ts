import { setTimeout as sleep } from 'node:timers/promises';

/** The work's own end, or `late` when that does not come in time; the work goes on. @param ms in milliseconds */
export const inTime = async <T>(work: Promise<T>, ms: number, late: T): Promise<T> => {
  const patience = new AbortController();
  const tooLate = sleep(ms, late, { signal: patience.signal }).catch(() => late);
  return await Promise.race([work, tooLate]).finally(() => patience.abort());
};
