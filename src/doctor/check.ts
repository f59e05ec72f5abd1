import { whatHappened } from '../db/errors.ts';
import { bounded } from '../rpc/time.ts';
import type { Patient } from './patient.ts';

type Group = 'configuration' | 'database' | 'roles' | 'server' | 'pools';

/** Something that is not as it should be, and what makes it so. */
export interface Fault {
  /** `failed`: the service does not work, or is not safe, as it is; `warning`: it works, and will not for ever. */
  readonly severity: 'failed' | 'warning';
  readonly says: string;
  readonly mend: string;
}

/** What a check saw, in a few words, and what of it is wrong. */
export interface Finding {
  readonly seen: string;
  readonly faults: readonly Fault[];
}

export interface Check {
  readonly group: Group;
  /** What it looks at; unique. */
  readonly name: string;
  /** @throws Skip when there is nothing to look at */
  readonly run: (patient: Patient) => Promise<Finding>;
}

/** A check with its outcome: of a skipped one, `seen` says why. */
export interface Result extends Finding {
  readonly group: Group;
  readonly name: string;
  readonly status: 'ok' | Fault['severity'] | 'skipped';
}

/** Why a check is left out. */
export class Skip extends Error {}

/** How long a check may take, in milliseconds. */
const TIMEOUT_MS = 20_000;

export const failed = (says: string, mend: string): Fault => ({ severity: 'failed', says, mend });
export const warning = (says: string, mend: string): Fault => ({ severity: 'warning', says, mend });

/** A failure whose message says what is wrong, and mostly also what to do: "what: how to mend it". */
export const faultOf = (error: unknown, otherwise: string): Fault => {
  const message = whatHappened(error);
  const [, says = message, mend = otherwise] = /^([^(]+?): (.+)$/s.exec(message) ?? [];
  return failed(says, mend);
};

const statusOf = (faults: readonly Fault[]): Result['status'] => {
  if (faults.some(({ severity }) => severity === 'failed')) return 'failed';
  return faults.length > 0 ? 'warning' : 'ok';
};

const cannotBeDone = (error: unknown): Finding => ({
  seen: 'it could not be done',
  faults: [failed(whatHappened(error), 'what is said there stands in the way; then run doctor again')],
});

const runCheck = async ({ group, name, run }: Check, patient: Patient): Promise<Result> => {
  try {
    const finding = await bounded(run(patient), AbortSignal.timeout(TIMEOUT_MS));
    return { group, name, status: statusOf(finding.faults), ...finding };
  } catch (error) {
    if (error instanceof Skip) return { group, name, status: 'skipped', seen: error.message, faults: [] };
    return { group, name, status: 'failed', ...cannotBeDone(error) };
  }
};

/**
 * Runs checks one after the other and tells each result at once. One that cannot be done has failed.
 * @throws the signal's reason between two checks, once it has aborted
 */
export const runChecks = async (
  checks: readonly Check[],
  patient: Patient,
  tell: (result: Result) => void,
  signal: AbortSignal,
): Promise<readonly Result[]> => {
  const results: Result[] = [];
  for (const check of checks) {
    const result = await runCheck(check, patient);
    signal.throwIfAborted();
    results.push(result);
    tell(result);
  }
  return results;
};
