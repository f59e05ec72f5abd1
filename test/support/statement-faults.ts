import { type Client, DatabaseError, type FieldDef } from 'pg';
import type { ZodObject, ZodType } from 'zod';
import { TYPES } from '../../src/db/pg-types.ts';
import type { Statement } from '../../src/db/statement.ts';
import { describeStatement } from './described.ts';

/** A column of a table, or of a row that a function answers. */
interface Attribute {
  readonly name: string;
  readonly type: number;
  readonly notNull: boolean;
}

/** What of the schema statements are compared with. */
export interface Catalogue {
  readonly typeName: (oid: number) => string;
  /** By `pg_attribute`'s `attrelid/attnum`. */
  readonly columns: ReadonlyMap<string, Attribute>;
  /** The columns of the rows a function answers, by its name. */
  readonly answered: ReadonlyMap<string, readonly Attribute[]>;
}

const COLUMNS = `select a.attrelid || '/' || a.attnum as key, a.attname as name, a.atttypid::integer as type, a.attnotnull as "notNull"
from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'jeex'::regnamespace and a.attnum > 0`;

const ANSWERED = `select p.proname as key, a.attname as name, a.atttypid::integer as type, a.attnotnull as "notNull"
from pg_proc p
cross join lateral (
  select p.prorettype as type union select o.type from unnest(p.proallargtypes, p.proargmodes) as o (type, mode) where o.mode <> 'i'
) as o
join pg_type t on t.oid = o.type
join pg_type r on r.oid = case when t.typcategory = 'A' then t.typelem else t.oid end
join pg_attribute a on a.attrelid = r.typrelid and a.attnum > 0 and not a.attisdropped
where p.pronamespace = 'jeex'::regnamespace`;

export const readCatalogue = async (client: Client): Promise<Catalogue> => {
  const types = await client.query<{ oid: number; name: string }>('select oid::integer, typname as name from pg_type');
  const columns = await client.query<Attribute & { key: string }>(COLUMNS);
  const answered = await client.query<Attribute & { key: string }>(ANSWERED);
  const names = new Map(types.rows.map(({ oid, name }) => [oid, name]));
  return {
    typeName: (oid) => names.get(oid) ?? String(oid),
    columns: new Map(columns.rows.map((row) => [row.key, row])),
    answered: Map.groupBy(answered.rows, ({ key }) => key),
  };
};

/** By type, what PostgreSQL can send: one of `json` says nothing of the others, so a schema need not take each. */
const SAMPLES: Readonly<Record<string, readonly string[]>> = {
  bool: ['t', 'f'],
  int2: ['-32768'],
  int4: ['2147483647'],
  int8: ['9223372036854775807'],
  float4: ['1.5'],
  float8: ['1.5'],
  numeric: ['1.5'],
  text: ['a'],
  varchar: ['a'],
  name: ['a'],
  uuid: ['018f0000-0000-7000-8000-000000000001'],
  bytea: ['\\x00ff'],
  date: ['2026-11-22'],
  interval: ['1 day'],
  timestamptz: ['2026-11-22 23:08:30.123456+00'],
  json: ['{}', '[]'],
  jsonb: ['{}', '[]'],
};

/** As the driver hands them to a row schema. @throws Error for a type that no statement has answered before */
const samplesOf = (oid: number, typeName: string): readonly unknown[] => {
  const texts = typeName.startsWith('_') ? SAMPLES[typeName.slice(1)]?.map((text) => `{"${text}"}`) : SAMPLES[typeName];
  if (texts === undefined) throw new Error(`SAMPLES lacks the type ${typeName}`);
  const parse = TYPES.getTypeParser(oid, 'text') as (text: string) => unknown;
  return texts.map(parse);
};

/** Whether a schema takes what a column of a type holds. */
const fits = (schema: ZodType, oid: number, typeName: string): boolean => {
  const isJson = /^jsonb?$/.test(typeName);
  // What looks into nothing stands for JSON, where it was looked into on its way in.
  if (takes(schema, Symbol())) return isJson;
  const samples = samplesOf(oid, typeName);
  const { values } = schema._zod;
  if (values?.has(null) && values.size === 1) return true;
  if (values !== undefined) {
    return [...values].every((value) => samples.every((sample) => typeof value === typeof sample));
  }
  return isJson ? samples.some((sample) => takes(schema, sample)) : samples.every((sample) => takes(schema, sample));
};

const takes = (schema: ZodType, value: unknown): boolean => schema.safeParse(value).success;

type Shape = Readonly<Record<string, ZodType>>;

/** The objects a row schema takes, one or another. @throws Error for a schema that does not say which columns it reads */
const shapesOf = (schema: ZodType): readonly Shape[] => {
  const { def } = schema as unknown as { def: { type: string; options: readonly ZodType[]; in: ZodType } };
  if (def.type === 'union') return def.options.flatMap(shapesOf);
  if (def.type === 'pipe') return shapesOf(def.in);
  if (def.type === 'object') return [(schema as ZodObject).shape as Shape];
  throw new Error(`a row schema is an object, a union of objects, or either with a transform; not ${def.type}`);
};

/** What the statement layer reads of a row by itself. */
const OWN = new Set(['verdict', 'detail', 'present', 'project_id', 'place', 'apart']);

export type Checked = Pick<Statement<never, unknown>, 'text' | 'params' | 'order' | 'row'>;

/** What does not fit between a statement and the database the client is connected to, as the client's role. */
export const statementFaults = async (client: Client, catalogue: Catalogue, statement: Checked): Promise<string[]> => {
  try {
    const described = await describeStatement(client, statement.text);
    // Preparing asks for no right; explaining does.
    await client.query(`explain (generic_plan) ${statement.text}`);
    return [
      ...columnFaults(catalogue, statement, described.columns),
      ...(await parameterFaults(client, catalogue, statement, described.params)),
    ];
  } catch (error) {
    if (error instanceof DatabaseError) return [error.message];
    throw error;
  }
};

const columnFaults = (catalogue: Catalogue, { text, row }: Checked, columns: readonly FieldDef[]): string[] => {
  const shapes = shapesOf(row);
  const called = [...text.matchAll(/\b([a-z_]+)\(/g)].flatMap(([, name = '']) => catalogue.answered.get(name) ?? []);
  const originOf = ({ name, dataTypeID, tableID, columnID }: FieldDef): Attribute | undefined =>
    tableID === 0
      ? called.find((one) => one.name === name && one.type === dataTypeID)
      : catalogue.columns.get(`${tableID}/${columnID}`);
  const answered = new Set(columns.map(({ name }) => name));
  const missing = new Set(shapes.flatMap((shape) => Object.keys(shape)).filter((name) => !answered.has(name)));
  return [
    ...[...missing].map((name) => `${name} is read and not answered`),
    ...columns.flatMap((column) => {
      const schemas = shapes.flatMap((shape) => shape[column.name] ?? []);
      return columnFault(catalogue, column, originOf(column), schemas) ?? [];
    }),
  ];
};

/** What does not fit between a column and the schemas that read it, one or another. */
const columnFault = (
  { typeName }: Catalogue,
  { name, dataTypeID, tableID }: FieldDef,
  origin: Attribute | undefined,
  schemas: readonly ZodType[],
): string | null => {
  if (schemas.length === 0) {
    // A function's row is answered whole.
    const isKnown = OWN.has(name) || (tableID === 0 && origin !== undefined);
    return isKnown ? null : `${name} is answered and not read`;
  }
  const type = typeName(dataTypeID);
  if (!schemas.every((schema) => fits(schema, dataTypeID, type)))
    return `${name} is ${type}, which its schema does not take`;
  // Of what a join may leave out nothing is known here: that shows in the row as a whole.
  const canBeNull = origin !== undefined && !origin.notNull;
  return canBeNull && !schemas.every((schema) => takes(schema, null))
    ? `${name} can be null, which its schema does not take`
    : null;
};

/** PostgreSQL converts between them by itself where nothing is lost, and refuses elsewhere. */
const NUMBERS = new Set(['int4', 'int8', 'float8']);

const parameterFaults = async (
  client: Client,
  catalogue: Catalogue,
  statement: Checked,
  params: readonly number[],
): Promise<string[]> => {
  const { params: declared, order } = statement;
  const faults = Object.keys(declared)
    .filter((name) => !order.includes(name))
    .map((name) => `$${name} is not used`);
  for (const [index, name] of order.entries()) {
    const type = (declared[name] ?? '').replace('?', '');
    const expected = type.replace(/^(.+)\[\]$/, '_$1');
    const found = catalogue.typeName(params[index] ?? 0);
    if (found !== expected) {
      faults.push(`$${name} is ${found}, declared ${type}`);
      continue;
    }
    const wanted = await wantedType(client, statement.text, index, type);
    const taken = wanted === null ? expected : catalogue.typeName(wanted);
    if (taken !== expected && !(NUMBERS.has(taken) && NUMBERS.has(expected))) {
      faults.push(`$${name} is ${expected} where ${taken} is taken`);
    }
  }
  return faults;
};

/**
 * A parameter's type where the text no longer tells it: PostgreSQL takes what the function, the row's field or the column
 * wants that it stands for. Null where nothing there tells.
 */
const wantedType = async (client: Client, text: string, index: number, type: string): Promise<number | null> => {
  const param = `$${index + 1}`;
  const untyped = text.replaceAll(`${param}::${type}`, () => param);
  try {
    return (await describeStatement(client, untyped)).params[index] ?? null;
  } catch (error) {
    if (error instanceof DatabaseError) return null;
    throw error;
  }
};
