import {
  type AnyValue,
  type Context,
  type Logger,
  ROOT_CONTEXT,
  SeverityNumber,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import type { DestinationStream } from 'pino';

const SEVERITIES: Readonly<Record<string, SeverityNumber>> = {
  trace: SeverityNumber.TRACE,
  debug: SeverityNumber.DEBUG,
  info: SeverityNumber.INFO,
  warn: SeverityNumber.WARN,
  error: SeverityNumber.ERROR,
  fatal: SeverityNumber.FATAL,
};

type Values = Readonly<Record<string, AnyValue>>;

/** A line of the log, as far as it has names of its own in a record. */
interface Line extends Values {
  readonly level: string;
  readonly time: string;
  readonly msg?: string;
  readonly traceId?: string;
  readonly spanId?: string;
  readonly correlationId?: string;
  readonly err?: { readonly type?: string; readonly message?: string; readonly stack?: string };
}

/** Turns each line of the log into a record of the trace it belongs to. */
export const logRecords = (logger: Logger): DestinationStream => ({
  write: (text) => {
    const { level, time, msg, traceId, spanId, correlationId, err, ...rest } = JSON.parse(text) as Line;
    logger.emit({
      timestamp: new Date(time),
      severityNumber: SEVERITIES[level] ?? SeverityNumber.UNSPECIFIED,
      severityText: level,
      ...(msg !== undefined && { body: msg }),
      context: contextOf(traceId, spanId),
      attributes: {
        ...rest,
        // As its span has it.
        ...(correlationId !== undefined && { 'jeex.correlation_id': correlationId }),
        ...(err && exceptionOf(err)),
      },
    });
  },
});

const contextOf = (traceId: string | undefined, spanId: string | undefined): Context => {
  if (traceId === undefined || spanId === undefined) return ROOT_CONTEXT;
  return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: TraceFlags.NONE });
};

const exceptionOf = ({ type, message, stack }: NonNullable<Line['err']>): Values => ({
  'exception.type': type,
  'exception.message': message,
  'exception.stacktrace': stack,
});
