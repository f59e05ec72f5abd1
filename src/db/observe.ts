import type { Attributes } from '@opentelemetry/api';
import type { Measurements } from '../telemetry/measurements.ts';
import { beginStatement, type StatementSpan } from '../telemetry/spans.ts';
import type { Asker } from './pool.ts';

/** A statement that took longer than it should have. */
export interface SlowStatement {
  readonly name: string;
  readonly text: string;
  readonly queueMs: number;
  readonly databaseMs: number;
  /** The SQLSTATE or the reason it failed with; null when it was answered. */
  readonly error: string | null;
  readonly asker: Asker;
}

/** Who looks on while statements run. */
export interface Observer {
  readonly measurements: Measurements;
  /** `server.address`, `server.port` and `db.namespace` of the database, for spans. */
  readonly place: Attributes;
  /** From how many milliseconds on a statement is slow, its wait for a connection left out. */
  readonly slowMs: number;
  /** Is told of each slow one, and must not throw. */
  readonly onSlow: (slow: SlowStatement) => void;
}

/** One statement on its way. */
interface Observed {
  /** It is sent now. @returns how long it waited for a connection, in milliseconds */
  send(): number;
  /** It was answered, or failed with this. */
  end(error: string | null): void;
}

/** Where the conventions say that a database is. */
export const placeOf = (url: string): Attributes => {
  const { hostname, port, pathname } = new URL(url);
  return {
    'server.address': decodeURIComponent(hostname),
    'server.port': Number(port || 5432),
    'db.namespace': decodeURIComponent(pathname.slice(1)),
  };
};

/**
 * Times a statement for the call it serves, for the measurements, and for a trace.
 * @param asked since when it waits, by `performance.now()`
 */
export const observe = (
  observer: Observer | undefined,
  statement: { readonly name: string; readonly text: string },
  asker: Asker,
  asked = performance.now(),
): Observed => {
  const { timing, sharers = [asker] } = asker;
  let sent: number | null = null;
  let spans: readonly (StatementSpan | null)[] = [];
  return {
    send: () => {
      sent = performance.now();
      const waited = sent - asked;
      if (timing) timing.queueMs += waited;
      observer?.measurements.waits.record(waited / 1000);
      if (observer) spans = sharers.map(({ trace }) => beginStatement(statement.name, observer.place, trace));
      return waited;
    },
    end: (error) => {
      for (const span of spans) span?.end(error);
      const now = performance.now();
      const databaseMs = sent === null ? 0 : now - sent;
      const queueMs = (sent ?? now) - asked;
      if (timing) timing.databaseMs += databaseMs;
      if (timing && sent === null) timing.queueMs += queueMs;
      if (!observer) return;
      observer.measurements.statement(statement.name, error, databaseMs / 1000);
      if (databaseMs < observer.slowMs) return;
      observer.measurements.slow.count += 1;
      observer.onSlow({ ...pick(statement), queueMs, databaseMs, error, asker: sharers[0] ?? asker });
    },
  };
};

const pick = ({ name, text }: { readonly name: string; readonly text: string }) => ({ name, text });
