import type { Logger } from 'pino';
import type { Entry } from './entry.ts';
import type { CodeName, Failure } from './errors.ts';
import { traceIdOf } from './trace.ts';

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
      caller: entry.caller,
      actor: entry.actor,
      correlationId: entry.correlationId,
      traceId: traceIdOf(entry.trace),
      code: failure?.code ?? 'OK',
      ...(failure && { reason: failure.reason, err: failure.cause }),
      durationMs: Math.round((performance.now() - entry.began) * 1000) / 1000,
    },
    'call',
  );
};
