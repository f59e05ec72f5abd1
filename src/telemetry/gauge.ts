/** A figure that is read when somebody collects, rather than counted on the call path. */
export interface Gauge {
  /** As the conventions name it; what they do not know begins with `postgresql.`, `pgbouncer.` or `jeex.`. */
  readonly name: string;
  readonly description: string;
  /** UCUM: `s`, `By`, `1`, `{connection}`. */
  readonly unit: string;
  /** A counter only grows while the process lives; an updowncounter makes sense added up over processes. */
  readonly kind: 'gauge' | 'counter' | 'updowncounter';
  /** Labels are few and bounded: never an id. */
  readonly points: readonly { readonly value: number; readonly attributes: Readonly<Record<string, string>> }[];
}

export type ReadGauges = () => readonly Gauge[];

/** What the callers' pool is called in labels (`db.client.connection.pool.name`). */
export const SERVICE_POOL = 'jeex_app';
