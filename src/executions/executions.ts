/** How long a lease lasts when the caller does not say, in seconds. */
const DEFAULT_LEASE_SECONDS = 300;

/**
 * The largest request with several parts, in bytes: its answer repeats much of it, adds the caller's name to each part, and
 * must fit a message of 4 MiB.
 */
export const MAX_REQUEST_BYTES = 3.25 * 1024 * 1024;

/** What a payload is when its caller does not say. */
export const DEFAULT_CONTENT_TYPE = 'application/json';

/** The length of a lease in seconds; 0 stands for the default. */
export const leaseSeconds = (requested: number): number => requested || DEFAULT_LEASE_SECONDS;

/** Which attempt a run is, from 1; 0 stands for the first. */
export const attemptOf = (requested: number): number => requested || 1;

/** How long a run took, in microseconds; null unless it started and ended. */
export const durationOf = (start: bigint | null, complete: bigint | null): bigint | null =>
  start === null || complete === null ? null : complete - start;

/** What the times of a run to record depend on. Times are in one format that sorts as text. */
interface RecordedTimes {
  readonly status: string;
  readonly start: string | null;
  readonly complete: string | null;
  /** As requested: 0 when the caller did not say. */
  readonly leaseSeconds: number;
}

interface Fault {
  readonly field: 'start_time' | 'complete_time' | 'lease_seconds';
  readonly description: string;
}

const fault = (field: Fault['field'], description: string): Fault => ({ field, description });

/**
 * What is wrong with the times of a run that is recorded as it is; null when nothing is. Whether they lie in the future is
 * for the database to say. A CANCELLED run may never have started.
 */
export const timesFault = ({ status, start, complete, leaseSeconds: seconds }: RecordedTimes): Fault | null => {
  if (status === 'PENDING' || status === 'RUNNING') {
    if (complete !== null) return fault('complete_time', `must be absent while ${status}`);
    if (status === 'PENDING' && start !== null) return fault('start_time', 'must be absent while PENDING');
    if (status === 'RUNNING' && seconds === 0) return fault('lease_seconds', 'must be given for a RUNNING run');
    return null;
  }
  if (complete === null) return fault('complete_time', `must be given for a ${status} run`);
  if (start === null) return status === 'CANCELLED' ? null : fault('start_time', `must be given for a ${status} run`);
  return start > complete ? fault('complete_time', 'must not be before start_time') : null;
};

/** What a run has only once it ended, and what it has only once it runs: its fields in the request. */
const OUTCOME = { output: 'output', errorMessage: 'error_message', cancelReason: 'cancel_reason' };
const EFFORT = {
  model: 'model',
  inputTokens: 'input_tokens',
  outputTokens: 'output_tokens',
  costMicros: 'cost_micros',
};
type Later = Readonly<Partial<Record<keyof typeof OUTCOME | keyof typeof EFFORT, unknown>>>;

/** The first field of a run to record that it cannot have yet in its status; null when there is none. */
export const earlyField = (status: string, run: Later): string | null => {
  if (status !== 'PENDING' && status !== 'RUNNING') return null;
  const later = Object.entries(status === 'PENDING' ? { ...OUTCOME, ...EFFORT } : OUTCOME);
  return later.find(([name]) => run[name as keyof Later])?.[1] ?? null;
};
