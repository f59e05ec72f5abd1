import type { Logger } from 'pino';
import type { AccessRecord } from '../audit/access-log.ts';
import { traceIdsOf } from '../telemetry/spans.ts';
import { type Entry, elapsedMs } from './entry.ts';
import type { CodeName, Failure } from './errors.ts';

// What an operator should see without asking; what a caller did wrong concerns the caller.
const LEVELS: Readonly<Partial<Record<CodeName, 'warn' | 'error'>>> = {
  INTERNAL: 'error',
  UNAVAILABLE: 'warn',
  RESOURCE_EXHAUSTED: 'warn',
  DEADLINE_EXCEEDED: 'warn',
  PERMISSION_DENIED: 'warn',
  UNAUTHENTICATED: 'warn',
};

/** Writes the one line of a call: who, what, how it ended and how long it took; never content. */
export const logCall = (log: Logger, entry: Entry, failure: Failure | null): void => {
  const level = (failure && LEVELS[failure.code]) ?? 'debug';
  if (!log.isLevelEnabled(level)) return;
  log[level](
    {
      method: entry.plan.name,
      caller: entry.caller?.name ?? '',
      actor: entry.actor,
      correlationId: entry.correlationId,
      ...traceIdsOf(entry.trace),
      code: failure?.code ?? 'OK',
      ...(failure && { reason: failure.reason, err: failure.cause }),
      durationMs: durationOf(entry),
    },
    'call',
  );
};

const durationOf = (entry: Entry): number => Math.round(elapsedMs(entry) * 1000) / 1000;

/** What goes on record of a call that ended so. */
export const accessRecordOf = (entry: Entry, result: string): AccessRecord => ({
  rpc: entry.plan.name,
  read: !entry.plan.mutation,
  caller: entry.caller?.name ?? '',
  actor: entry.actor,
  projects: entry.subject.projects,
  users: entry.subject.users,
  result,
  correlationId: entry.correlationId,
  admitted: entry.admitted,
  durationMs: durationOf(entry),
});
