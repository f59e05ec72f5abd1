/** What the audit is made of, in the order it is done. */
export const GROUPS = [
  'catalog',
  'plans',
  'membership',
  'tables',
  'foreign',
  'timings',
  'roles',
  'forged',
  'load',
] as const;
export type Group = (typeof GROUPS)[number];

/** What a check saw. */
export interface Finding {
  /** In a few words, for the line of the check. */
  readonly seen: string;
  /** One line for each thing that is wrong; none: the check holds. */
  readonly faults: readonly string[];
}

export interface Check {
  readonly group: Group;
  /** What holds when the check passes. */
  readonly name: string;
  readonly run: () => Promise<Finding>;
}

/** A check with its outcome. */
export interface Result extends Finding {
  readonly group: Group;
  readonly name: string;
  readonly ok: boolean;
  /** How long it took, in milliseconds. */
  readonly ms: number;
}

/** How many faults of one check are told; the rest is counted. */
const MOST_FAULTS = 20;

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const few = (faults: readonly string[]): readonly string[] =>
  faults.length <= MOST_FAULTS ? faults : [...faults.slice(0, MOST_FAULTS), `and ${faults.length - MOST_FAULTS} more`];

/** Runs one check. One that cannot be done does not hold: that is a fault too. */
const runCheck = async ({ group, name, run }: Check): Promise<Result> => {
  const began = performance.now();
  const finding = await run().catch((error: unknown) => ({
    seen: 'it could not be done',
    faults: [messageOf(error)],
  }));
  const { seen, faults } = finding;
  return { group, name, seen, faults: few(faults), ok: faults.length === 0, ms: Math.round(performance.now() - began) };
};

/**
 * Runs checks one after the other and tells each result at once.
 * @throws the signal's reason between two checks, once it has aborted
 */
export const runChecks = async (
  checks: readonly Check[],
  tell: (result: Result) => void,
  signal: AbortSignal,
): Promise<readonly Result[]> => {
  const results: Result[] = [];
  for (const check of checks) {
    signal.throwIfAborted();
    const result = await runCheck(check);
    signal.throwIfAborted();
    results.push(result);
    tell(result);
  }
  return results;
};
