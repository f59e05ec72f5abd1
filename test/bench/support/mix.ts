import { type Driver, type Load, merged, type Outcome } from './load.ts';
import { sampled } from './measure.ts';
import { append, getProject, getSmall } from './works.ts';
import type { Target } from './world.ts';

/** Calls at a rate, of which 80 % read and 20 % append. */
export interface Mix {
  /** @param rate calls a second, whether or not those before are answered */
  run(rate: number, seconds: number): Promise<Outcome>;
}

const READS = 0.8;
/** In flight, at most: of callers who wait no longer than this, in milliseconds. */
const CALLERS = 800;
const DEADLINE_MS = 2_000;

/** Reads alternate between GetVersion and GetProject; both go to every project. */
export const prepareMix = async (
  target: Target,
  projects: readonly string[],
  { plain, stamping }: { readonly plain: Driver; readonly stamping: Driver },
): Promise<Mix> => {
  const half = projects.length / 2;
  const reads = [
    await sampled(target, getSmall(projects.slice(0, half))),
    await sampled(target, getProject(projects.slice(half))),
  ];
  // One of each kind in turn: a driver may take as many as it has processes.
  const requests = reads[0]?.flatMap((request, i) => [request, reads[1]?.[i] ?? request]) ?? [];
  const writes = await sampled(target, append(projects));
  const shared = { address: target.address, headers: target.headers, deadlineMs: DEADLINE_MS };
  const load = (of: Load['requests'], rate: number, seconds: number): Load => ({
    ...shared,
    requests: of,
    callers: CALLERS,
    calls: Math.ceil(rate * seconds),
    rate,
  });
  return {
    run: async (rate, seconds) =>
      merged(
        await Promise.all([
          plain.run(load(requests, READS * rate, seconds)),
          stamping.run(load(writes, (1 - READS) * rate, seconds)),
        ]),
      ),
  };
};
