import type { FragmentSqlToken } from 'slonik';
import type { ZodObject, ZodRawShape, z } from 'zod';
import { sql } from './statement.ts';

type Prefixed<P extends string, S> = { readonly [K in keyof S & string as `${P}${K}`]: S[K] };

/** A row within a row: its columns stand beside others of the same names, each under a prefix. */
interface PrefixedRow<P extends string, S extends ZodRawShape> {
  /** What the row schema around it reads. */
  readonly shape: Prefixed<P, S>;
  /** What to select. @param column the expression of a column by its name in the row */
  columns(column: (name: string) => FragmentSqlToken): FragmentSqlToken;
  /** The row under its own names, of a row that was parsed with `shape`. */
  of(row: object): z.infer<ZodObject<S>>;
}

export const prefixed = <const P extends string, S extends ZodRawShape>(
  prefix: P,
  row: ZodObject<S>,
): PrefixedRow<P, S> => {
  const names = Object.keys(row.shape);
  return {
    shape: Object.fromEntries(names.map((name) => [prefix + name, row.shape[name]])) as unknown as Prefixed<P, S>,
    columns: (column) =>
      sql.fragment`${sql.join(
        names.map((name) => sql.fragment`${column(name)} as ${sql.identifier([prefix + name])}`),
        sql.fragment`, `,
      )}`,
    of: (whole) =>
      Object.fromEntries(names.map((name) => [name, Reflect.get(whole, prefix + name)])) as z.infer<ZodObject<S>>,
  };
};
