import { Histogram } from './histogram.ts';

/** How a door names its protocol, as the conventions do (`rpc.system.name`). */
export type RpcSystem = 'grpc' | 'connectrpc';

/** The calls of one RPC that ended alike. */
export interface CallSeries {
  readonly system: RpcSystem;
  /** `package.Service/Method`. */
  readonly method: string;
  readonly streaming: boolean;
  /** The status code's name, `OK` among them. */
  readonly code: string;
  readonly durations: Histogram;
}

/** The statements of one name that ended alike. */
export interface StatementSeries {
  readonly name: string;
  /** The SQLSTATE or, without one, the reason that the call was given; null for those that were answered. */
  readonly error: string | null;
  readonly durations: Histogram;
}

/** A method as far as it tells calls apart. */
interface Method {
  readonly name: string;
  readonly streaming: boolean;
}

/**
 * What the call path counts, once: health, the status page and every exporter read it here. Bounded, since methods,
 * codes, statements and SQLSTATEs are.
 */
export interface Measurements {
  /** When counting began, in milliseconds since the epoch. */
  readonly since: number;
  readonly calls: ReadonlyMap<string, CallSeries>;
  readonly statements: ReadonlyMap<string, StatementSeries>;
  /** How long calls waited for their turn to begin. */
  readonly turns: Histogram;
  /** How long statements of calls waited for a connection. */
  readonly waits: Histogram;
  /** Statements over the threshold of SLOW_QUERY_MS. */
  readonly slow: { count: number };
  call(system: RpcSystem, method: Method, code: string, seconds: number): void;
  statement(name: string, error: string | null, seconds: number): void;
}

export const createMeasurements = (): Measurements => {
  const calls = new Map<string, CallSeries>();
  const statements = new Map<string, StatementSeries>();
  return {
    since: Date.now(),
    calls,
    statements,
    turns: new Histogram(),
    waits: new Histogram(),
    slow: { count: 0 },
    call: (system, { name, streaming }, code, seconds) => {
      const key = `${system} ${code} ${name}`;
      let series = calls.get(key);
      if (!series) {
        series = { system, method: name, streaming, code, durations: new Histogram() };
        calls.set(key, series);
      }
      series.durations.record(seconds);
    },
    statement: (name, error, seconds) => {
      const key = error === null ? name : `${name} ${error}`;
      let series = statements.get(key);
      if (!series) {
        series = { name, error, durations: new Histogram() };
        statements.set(key, series);
      }
      series.durations.record(seconds);
    },
  };
};
