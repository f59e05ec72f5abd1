import { type DestinationStream, type Logger, pino } from 'pino';

export type { Logger };

const MAX_CAUSES = 4;

/**
 * What a log line says of an error. Only named properties: a driver's error also carries the statement, its values and
 * the row it failed on, which are content.
 */
const serialiseError = (error: unknown, depth = 0): unknown => {
  if (!(error instanceof Error)) return error === undefined || error === null ? undefined : { type: typeof error };
  const { code, constraint, table } = error as Error & { code?: unknown; constraint?: unknown; table?: unknown };
  return {
    type: error.name,
    message: error.message,
    stack: error.stack,
    code,
    constraint,
    table,
    cause: depth < MAX_CAUSES ? serialiseError(error.cause, depth + 1) : undefined,
  };
};

/** The same lines to another place too. */
export const both = (one: DestinationStream, other: DestinationStream): DestinationStream => ({
  write: (line) => {
    one.write(line);
    other.write(line);
  },
});

/** Where the log goes: one JSON object per line on standard error, so that standard output stays free for answers. */
export const standardError = (): DestinationStream => pino.destination(2);

/**
 * The service's log.
 * @param level one of pino's: trace, debug, info, warn, error, fatal, silent
 */
export const createLog = (level: string, destination: DestinationStream = standardError()): Logger =>
  pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (error) => serialiseError(error) },
    },
    destination,
  );
