import { MigrationRefused } from '../migrator/errors.ts';
import { reachedBefore } from '../migrator/migrate.ts';
import { print } from './output.ts';

/** What a command has found or done, for either reader. */
export interface Answer {
  readonly json: object;
  /** Without the last line's end. */
  readonly text: string;
}

/**
 * Runs a command on the schema and prints its answer. For machines that is one line, also of a failure: `error`, each of its
 * `problems`, the `steps` that were taken before it, and the `version` the database has reached, where that is known.
 * @throws what the work throws, which is told to people elsewhere
 */
export async function answer(json: boolean, work: () => Promise<Answer>): Promise<void> {
  try {
    const result = await work();
    print(json ? JSON.stringify(result.json) : result.text);
  } catch (error) {
    if (json) print(JSON.stringify(failure(error)));
    throw error;
  }
}

function failure(error: unknown): object {
  if (!(error instanceof Error)) return { error: String(error), problems: [], steps: [] };
  const { steps = [], version = null } = reachedBefore(error) ?? {};
  return {
    error: error.message,
    problems: error instanceof MigrationRefused ? error.problems : [],
    steps,
    ...(version !== null && { version }),
  };
}

/** How long a migration took, for people: `12 ms`, `3.4 s`, `75 s`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}
