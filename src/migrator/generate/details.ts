import { type Client, escapeIdentifier } from 'pg';
import { MIGRATOR_TABLES } from '../history.ts';

/** What of a column or of an index's column the comparison does not look at. */
interface Detail {
  readonly relation: string;
  readonly kind: 'table' | 'index';
  /** The column's name; of an index's column its number. */
  readonly column: string;
  readonly storage: string;
  readonly compression: string;
  /** How many values ANALYZE keeps; null: as many as the server says. */
  readonly statistics: number | null;
  /** The name of its constraint; null: it takes nulls. */
  readonly notNull: string | null;
}

/** By relation and column. */
export type Details = ReadonlyMap<string, Detail>;

const COMPRESSIONS: Readonly<Record<string, string>> = { p: 'pglz', l: 'lz4' };
const STORAGES: Readonly<Record<string, string>> = { p: 'PLAIN', e: 'EXTERNAL', m: 'MAIN', x: 'EXTENDED' };

/** Reads them from a database's schema. */
export async function readDetails(client: Client): Promise<Details> {
  const { rows } = await client.query<Detail>(
    `select r.relname as relation, case when r.relkind in ('i', 'I') then 'index' else 'table' end as kind,
       case when r.relkind in ('i', 'I') then a.attnum::text else a.attname end as column,
       a.attstorage as storage, a.attcompression as compression, a.attstattarget as statistics, n.conname as "notNull"
     from pg_class r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
     left join pg_constraint n on n.conrelid = r.oid and n.contype = 'n' and n.conkey = array[a.attnum]
     where r.relnamespace = 'jeex'::regnamespace and r.relkind in ('r', 'p', 'i', 'I') and r.relname <> all ($1)
     order by r.relname, a.attnum`,
    [MIGRATOR_TABLES],
  );
  return new Map(rows.map((detail) => [`${detail.relation} ${detail.column}`, detail]));
}

/** The statements that make the details of a database those of another, as far as both have the columns. */
export async function settleDetails(client: Client, wanted: Details): Promise<string[]> {
  const found = await readDetails(client);
  return [...found].flatMap(([key, detail]) => {
    const goal = wanted.get(key);
    return goal === undefined || goal.kind !== detail.kind ? [] : settle(detail, goal);
  });
}

function settle(found: Detail, wanted: Detail): string[] {
  const relation = `ALTER ${found.kind === 'table' ? 'TABLE' : 'INDEX'} jeex.${escapeIdentifier(found.relation)}`;
  const column = `${relation} ALTER COLUMN ${found.kind === 'table' ? escapeIdentifier(found.column) : found.column}`;
  const { storage, compression, statistics, notNull } = wanted;
  const isRenamed = found.notNull !== null && notNull !== null && found.notNull !== notNull;
  return [
    ...(isRenamed ? [rename(relation, found.notNull, notNull)] : []),
    ...(found.statistics === statistics ? [] : [`${column} SET STATISTICS ${statistics ?? -1}`]),
    ...(found.kind === 'index' ? [] : settleStorage(column, found, storage, compression)),
  ];
}

const settleStorage = (column: string, found: Detail, storage: string, compression: string): string[] => [
  ...(found.storage === storage ? [] : [`${column} SET STORAGE ${STORAGES[storage]}`]),
  ...(found.compression === compression ? [] : [`${column} SET COMPRESSION ${COMPRESSIONS[compression] ?? 'DEFAULT'}`]),
];

const rename = (relation: string, from: string, to: string): string =>
  `${relation} RENAME CONSTRAINT ${escapeIdentifier(from)} TO ${escapeIdentifier(to)}`;
