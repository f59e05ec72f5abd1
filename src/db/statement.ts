import { createHash } from 'node:crypto';
import { createSqlTag, type FragmentSqlToken, type QuerySqlToken } from 'slonik';
import type { ZodType } from 'zod';
import type { Lane } from './slots.ts';

export const sql = createSqlTag();

/** PostgreSQL types of parameters and the JavaScript values they take. `jsonb` takes JSON text. */
interface PgTypes {
  uuid: string;
  text: string;
  int4: number;
  int8: bigint;
  float8: number;
  bool: boolean;
  jsonb: string;
  bytea: Buffer;
  timestamptz: string;
  interval: string;
}

/** A parameter's type: `uuid`, `uuid?` (may be null), `uuid[]` (elements may be null). */
type ParamType = keyof PgTypes | `${keyof PgTypes}?` | `${keyof PgTypes}[]`;

type ParamValue<T> = T extends `${infer U extends keyof PgTypes}?`
  ? PgTypes[U] | null
  : T extends `${infer U extends keyof PgTypes}[]`
    ? readonly (PgTypes[U] | null)[]
    : T extends keyof PgTypes
      ? PgTypes[T]
      : never;

export type ParamTypes = Readonly<Record<string, ParamType>>;
export type Params<T extends ParamTypes> = { readonly [K in keyof T]: ParamValue<T[K]> };
/** The parameters as they stand in the text: `$3::uuid`. */
export type Refs<T extends ParamTypes> = { readonly [K in keyof T]: FragmentSqlToken };

/** A statement with a fixed text: built once at load, sent prepared under a name made from its hash. */
export interface Statement<T extends ParamTypes, R> {
  /** What it does: a write is sent again only where that is known to be the same. */
  readonly lane: Lane;
  /** The same for many askers at once, whose rows have a `place` and are a point read's each; null: nobody shares it. */
  readonly shared: Statement<Readonly<Record<string, never>>, R> | null;
  readonly name: string;
  readonly text: string;
  readonly params: ParamTypes;
  /** The names of its parameters, the one of `$1` first. */
  readonly order: readonly string[];
  readonly row: ZodType<R>;
  /** Whether its rows belong to one project, which is then compared with the project asked for. */
  readonly scoped: boolean;
  /** Whether its text alone fixes its columns: it selects no `*` of a type or a function that a migration may widen. */
  readonly fixed: boolean;
  token(params: Params<T>): QuerySqlToken;
}

interface Definition<T extends ParamTypes, R> {
  /** `entity.verb`, unique: names the statement in logs, spans and tests. */
  readonly name: string;
  readonly params: T;
  readonly row: ZodType<R>;
  readonly sql: (p: Refs<T>) => FragmentSqlToken;
}

interface Kind<R> extends Pick<Statement<never, R>, 'scoped' | 'lane'> {
  readonly fixed?: boolean;
  readonly shared?: Statement<never, R>['shared'];
}

const registered = new Map<string, Statement<never, unknown>>();

/** Every statement of the service, by name. */
export const registry: ReadonlyMap<string, Statement<never, unknown>> = registered;

/**
 * Defines a statement. Its text goes once through Slonik's tag with the parameters' names as values, so that a call only
 * has to put its values in order; nothing but a bound parameter can enter the text.
 */
const define = <T extends ParamTypes, R>(
  definition: Definition<T, R>,
  { scoped, lane, fixed = false, shared = null }: Kind<R>,
): Statement<T, R> => {
  const refs = Object.fromEntries(
    Object.entries(definition.params).map(([key, type]) => {
      const cast = { ...sql.fragment``, sql: `::${type.replace('?', '')}` };
      return [key, sql.fragment`${key}${cast}`];
    }),
  ) as Refs<T>;
  const built = definition.sql(refs);
  const order: (keyof T & string)[] = [...new Set(built.values as string[])];
  const text = built.sql.replace(/\$slonik_(\d+)/g, (_, position) => {
    return `$${order.indexOf(built.values[Number(position) - 1] as string) + 1}`;
  });
  const name = `${definition.name}_${createHash('sha256').update(text).digest('hex').slice(0, 12)}`;
  const template = sql.prepared(name, definition.row)`select`;
  const statement: Statement<T, R> = {
    lane,
    shared,
    name: definition.name,
    text,
    params: definition.params,
    order,
    row: definition.row,
    scoped,
    fixed,
    token: (params) => ({ ...template, sql: text, values: order.map((key) => params[key] as string) }),
  };
  if (registered.has(definition.name)) {
    throw new Error(`two statements are called ${definition.name}`);
  }
  registered.set(definition.name, statement as unknown as Statement<never, unknown>);
  return statement;
};

/** A statement that touches no project's rows, or only through a definer function. A `verdict` column is obeyed. */
export const statement = <T extends ParamTypes, R>(definition: Definition<T, R>): Statement<T, R> =>
  define(definition, { scoped: false, lane: 'read' });

const SCOPE = { project: 'uuid', actor: 'uuid?' } as const;
type ScopeTypes = typeof SCOPE;

/** Parameters of which each asker has one value. */
type Each<T extends ParamTypes> = { readonly [K in keyof T]: `${keyof PgTypes}[]` };

const eachOf = <T extends ParamTypes>(params: T): Each<T> =>
  Object.fromEntries(
    Object.entries(params).map(([name, type]) => [name, `${type.replace('?', '')}[]`]),
  ) as unknown as Each<T>;

/** The askers, one a row, whose arrays stand for parameters: `asked.after` is an asker's element of the parameter `after`. */
const asked = <T extends ParamTypes>(refs: Refs<Each<T>>): FragmentSqlToken => {
  const names = Object.keys(refs);
  const columns = [...names, 'place'].map((name) => sql.identifier([name]));
  const arrays = names.map((name) => refs[name] as FragmentSqlToken);
  return sql.fragment`unnest(${sql.join(arrays, sql.fragment`, `)}) with ordinality as asked (${sql.join(columns, sql.fragment`, `)})`;
};

const askedRefs = <T extends ParamTypes>(params: T): Refs<T> =>
  Object.fromEntries(
    Object.keys(params).map((name) => [name, sql.fragment`asked.${sql.identifier([name])}`]),
  ) as unknown as Refs<T>;

interface PointDefinition<T extends ParamTypes, R> extends Omit<Definition<T, R>, 'sql'> {
  readonly select: FragmentSqlToken;
  /** What to select from; `together`: for one asker of several. */
  readonly from: (p: Refs<T>, together: boolean) => FragmentSqlToken;
}

/**
 * The one row of one asker. What several ask for at the same moment is one statement, with an entry for each of them. Reads in
 * a project name their columns; a function may answer its own type's.
 */
const definePoint = <T extends ParamTypes, R>(definition: PointDefinition<T, R>, scoped: boolean): Statement<T, R> => {
  const { name, params, row, select, from } = definition;
  const shared = define<Each<T>, R>(
    {
      name: `${name}_shared`,
      params: eachOf(params),
      row,
      sql: (p) => sql.fragment`
select asked.place, ${select}
from ${asked(p)}
cross join lateral ${from(askedRefs(params), true)}`,
    },
    { scoped, lane: 'read', fixed: scoped },
  );
  return define(
    { name, params, row, sql: (p) => sql.fragment`select ${select} from ${from(p, false)}` },
    { scoped, lane: 'read', fixed: scoped, shared: shared as unknown as Statement<never, R>['shared'] },
  );
};

/** A point read of a definer function that decides itself who may see what. */
export const pointOf = <const T extends ParamTypes, R>(definition: PointDefinition<T, R>): Statement<T, R> =>
  definePoint(definition, false);

interface ReadDefinition<T extends ParamTypes, R> extends Omit<Definition<T & ScopeTypes, R>, 'params'> {
  /** What the query takes besides `project` and `actor`. */
  readonly params: T;
  /** Who may read; see `enter_project`. */
  readonly need: 'reader' | 'member' | 'owner';
  /** Whether owners may look into a deleted project. */
  readonly withDeleted?: (p: Refs<T & ScopeTypes>) => FragmentSqlToken;
}

/**
 * What stands behind a scope. `scope.project_id is not null offset 0` ties the query to the scope: it runs after the project
 * was entered, once for each entry, and sees that project alone even where it forgets to ask for it.
 */
export const fence = (query: FragmentSqlToken, columns = sql.fragment`query.*`): FragmentSqlToken => sql.fragment`
left join lateral (
  select ${columns} from (${query}) as query where scope.project_id is not null offset 0
) as fenced on true`;

const IN_SCOPE = sql.fragment`scope.verdict, fenced.*`;
const PRESENT = sql.fragment`true as present, query.*`;

type Scoped<T extends ParamTypes, R> = Pick<ReadDefinition<T, R>, 'need' | 'withDeleted'>;

const entered = <T extends ParamTypes, R>({ need, withDeleted }: Scoped<T, R>, p: Refs<T & ScopeTypes>) =>
  sql.fragment`enter_project(${p.project}, ${p.actor}, ${sql.literalValue(need)}, ${withDeleted?.(p) ?? sql.fragment`false`}) as scope`;

/** A read in one project. `sql` selects its rows, `project_id` among them, from tables joined on `scope.project_id`. */
export const read = <const T extends ParamTypes, R>(definition: ReadDefinition<T, R>): Statement<T & ScopeTypes, R> =>
  define(
    {
      name: definition.name,
      params: { ...definition.params, ...SCOPE },
      row: definition.row,
      sql: (p) => sql.fragment`
select ${IN_SCOPE}
from ${entered(definition, p)}${fence(definition.sql(p), PRESENT)}`,
    },
    { scoped: true, lane: 'read' },
  );

/** What one row may weigh that several wait for: more, and it is read apart. */
export const MOST_TOGETHER_BYTES = 128 * 1024;

interface PointReadDefinition<T extends ParamTypes, R> extends Omit<ReadDefinition<T, R>, 'sql'> {
  readonly sql: (p: Refs<T & ScopeTypes>, together: boolean) => FragmentSqlToken;
}

/**
 * A read of one row in one project, which calls that wait at the same moment share, each behind an entry of its own. Where
 * `together`, a row that is too large to be waited for by others leaves its content out and says `apart`: it is read again
 * for its asker alone.
 */
export const pointRead = <const T extends ParamTypes, R>(
  definition: PointReadDefinition<T, R>,
): Statement<T & ScopeTypes, R> =>
  definePoint<T & ScopeTypes, R>(
    {
      name: definition.name,
      params: { ...definition.params, ...SCOPE },
      row: definition.row,
      select: IN_SCOPE,
      from: (p, together) => sql.fragment`${entered(definition, p)}${fence(definition.sql(p, together), PRESENT)}`,
    },
    true,
  );

const ASKED = { project: 'uuid[]', actor: 'uuid[]' } as const;
type AskedTypes = typeof ASKED;

interface ReadEachDefinition<T extends ParamTypes, R> extends Omit<Definition<T, R>, 'sql'> {
  readonly need: 'reader' | 'member';
  /** `asked` stands for one asker: `asked.after` is its element of the parameter `after`. */
  readonly sql: () => FragmentSqlToken;
}

/**
 * One read for many askers in one statement, each behind its own entry. Every parameter is an array with one element for each
 * asker. Rows come in no order: `place` (from 1) is the asker, `entered` its verdict; one that was refused, or has no row, has
 * a row of nulls. The caller compares each row's `project_id` with what was asked at that place.
 */
export const readEach = <const T extends ParamTypes, R>(
  definition: ReadEachDefinition<T, R>,
): Statement<T & AskedTypes, R> =>
  define<T & AskedTypes, R>(
    {
      name: definition.name,
      params: { ...ASKED, ...definition.params },
      row: definition.row,
      sql: (p) => sql.fragment`
select asked.place, scope.verdict as entered, fenced.*
from ${asked(p as unknown as Refs<Each<T & ScopeTypes>>)}
cross join lateral ${entered({ need: definition.need }, askedRefs(SCOPE))}${fence(definition.sql())}`,
    },
    { scoped: false, lane: 'read' },
  );

const CALL = {
  actor: 'uuid?',
  caller: 'text',
  correlation: 'uuid',
  rpc: 'text',
  request_id: 'uuid?',
  request_hash: 'bytea?',
  reply_key: 'bytea?',
} as const;
type CallTypes = typeof CALL;

/** What a write needs to know of the call it serves. */
export interface Writer {
  readonly method: { readonly name: string; readonly parent: { readonly typeName: string } };
  readonly actor: string | null;
  readonly caller: string;
  readonly correlationId: string;
  readonly request: { readonly id: string; readonly hash: Buffer; readonly key: Buffer } | null;
}

/** The values of a write's `call` parameters. */
export const callParams = (call: Writer): Params<CallTypes> => ({
  actor: call.actor,
  caller: call.caller,
  correlation: call.correlationId,
  rpc: `${call.method.parent.typeName}/${call.method.name}`,
  request_id: call.request?.id ?? null,
  request_hash: call.request?.hash ?? null,
  reply_key: call.request?.key ?? null,
});

interface WriteDefinition<T extends ParamTypes, R> extends Omit<Definition<T, R>, 'sql'> {
  /** The call of the function that does it; `call` stands for its first argument. */
  readonly sql: (p: Refs<T>, call: FragmentSqlToken) => FragmentSqlToken;
  /** What to select of the function's row `w`: its `result` unless told otherwise. */
  readonly select?: FragmentSqlToken;
  /** What to join to `w`, such as the `results` of a batch. */
  readonly join?: FragmentSqlToken;
}

/**
 * A write: one call of one function, which is one transaction and one round trip. The function answers
 * `(verdict, detail, result)`, or `results`, an array, for a batch.
 */
export const write = <const T extends ParamTypes, R>(definition: WriteDefinition<T, R>): Statement<T & CallTypes, R> =>
  define<T & CallTypes, R>(
    {
      name: definition.name,
      params: { ...definition.params, ...CALL },
      row: definition.row,
      sql: (p) => {
        const refs = p as unknown as Refs<CallTypes>;
        const call = sql.fragment`row(${refs.actor}, ${refs.caller}, ${refs.correlation}, ${refs.rpc}, ${refs.request_id}, ${refs.request_hash}, ${refs.reply_key})::call`;
        return sql.fragment`
select w.verdict, w.detail, ${definition.select ?? sql.fragment`(w.result).*`}
from ${definition.sql(p as unknown as Refs<T>, call)} as w ${definition.join ?? sql.fragment``}`;
      },
    },
    { scoped: false, lane: 'write' },
  );

/** For batches: the rows of `w.results`, in order. */
export const EACH_RESULT = {
  select: sql.fragment`each.*`,
  join: sql.fragment`left join lateral unnest(w.results) as each on true`,
} as const;
