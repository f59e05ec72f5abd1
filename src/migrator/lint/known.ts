import { expectedCatalogue } from '../drift.ts';
import { qualified } from './ast.ts';

interface Known {
  /** Identity to definition. */
  readonly objects: ReadonlyMap<string, string>;
  /** Functions with their schema, and whether one of that name may write. */
  readonly writes: ReadonlyMap<string, boolean>;
}

let read: Known | undefined;

/** What the migrations of this release make; nothing where that cannot be read, which `generate` mends. */
function known(): Known {
  read ??= readKnown();
  return read;
}

function readKnown(): Known {
  try {
    const objects = expectedCatalogue().catalogue;
    const writes = new Map<string, boolean>();
    for (const [identity, definition] of objects) {
      const [, name] = /^(?:function|procedure) ([^(]+)\(/.exec(identity) ?? [];
      if (name !== undefined) writes.set(name, writes.get(name) || !/\n (IMMUTABLE|STABLE)\b/.test(definition));
    }
    return { objects, writes };
  } catch {
    return { objects: new Map(), writes: new Map() };
  }
}

/** Whether an older release may name it in an `on conflict`: a unique index, or a constraint of a table that has one. */
export function isArbiter(name: string, table?: string): boolean {
  const identity = table === undefined ? `index ${qualified(name.split('.'))}` : `constraint ${name} on ${table}`;
  const definition = known().objects.get(identity);
  return definition === undefined
    ? /_(pkey|key)$/.test(name)
    : /^(PRIMARY KEY|UNIQUE|CREATE UNIQUE)\b/.test(definition);
}

/** Whether it shows every row to those it is for; one that is not known may. */
export const isOpenPolicy = (name: string, table: string): boolean =>
  / (using|with check) \(true\)/.test(known().objects.get(`policy ${name} on ${table}`) ?? ' using (true)');

/** Whether a function that is called by that name may write: without a schema, only where it is known. */
export const mayWrite = (parts: readonly string[]): boolean =>
  known().writes.get(qualified(parts)) ?? (parts.length > 1 && parts[0] !== 'pg_catalog');
