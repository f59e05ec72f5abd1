import type { Node, RangeVar, TypeName } from 'libpg-query';

/** The kinds of node in PostgreSQL's parse tree, which comes as JSON: `{ AlterTableStmt: { … } }`. */
export type Kind = Node extends infer N ? (N extends unknown ? keyof N : never) : never;
export type Body<K extends Kind> = Extract<Node, Record<K, unknown>>[K];

/** What judges statements of some kinds. */
export type Handlers<Context> = { readonly [K in Kind]?: (statement: Body<K>, context: Context) => void };

/** The schema that names without one mean: the migrator sets the search path. */
const SCHEMA = 'jeex';

/** The node's content if it is of that kind. */
export const as = <K extends Kind>(kind: K, node: Node | undefined): Body<K> | undefined =>
  (node as Partial<Record<K, Body<K>>> | undefined)?.[kind];

/** Those of the nodes that are of that kind. */
export const each = <K extends Kind>(kind: K, nodes: readonly Node[] | undefined): Body<K>[] =>
  (nodes ?? []).flatMap((node) => as(kind, node) ?? []);

export const strings = (nodes: readonly Node[] | undefined): string[] =>
  each('String', nodes).map(({ sval = '' }) => sval);

/** A name with its schema, by which an object is known whichever way it is written. */
export const qualified = (parts: readonly string[]): string =>
  (parts.length === 1 ? [SCHEMA, ...parts] : parts).join('.');

export const relationName = (relation: RangeVar | undefined): string =>
  qualified([...(relation?.schemaname ? [relation.schemaname] : []), relation?.relname ?? '']);

/** A type as a function's signature has it. */
export const typeName = ({ names, arrayBounds = [] }: TypeName): string =>
  qualified(strings(names)).replace(/^(pg_catalog|jeex)\./, '') + '[]'.repeat(arrayBounds.length);

/** A name as people know it. */
export const shown = (name: string): string => (name.startsWith(`${SCHEMA}.`) ? name.slice(SCHEMA.length + 1) : name);

/** Every node of that kind within, at any depth. */
export function within<K extends Kind>(kind: K, tree: unknown): Body<K>[] {
  if (Array.isArray(tree)) return tree.flatMap((item) => within(kind, item));
  if (tree === null || typeof tree !== 'object') return [];
  return Object.entries(tree).flatMap(([key, value]) => [
    ...(key === kind ? [value as Body<K>] : []),
    ...within(kind, value),
  ]);
}

/** The parts of a condition that all have to hold. */
export function conjuncts(condition: Node | undefined): Node[] {
  const both = as('BoolExpr', condition);
  if (both?.boolop === 'AND_EXPR') return (both.args ?? []).flatMap(conjuncts);
  return condition === undefined ? [] : [condition];
}

/** The column that an expression is, without its table; undefined where it is no column. */
export const columnName = (expression: Node | undefined): string | undefined =>
  strings(as('ColumnRef', expression)?.fields).at(-1);
