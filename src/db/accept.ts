import { Refusal, refusalOf } from '../refusal.ts';
import type { Params, ParamTypes, Statement } from './statement.ts';

/** What the statement layer reads of a row by itself. */
export interface AnyRow {
  readonly verdict?: string;
  readonly detail?: Readonly<Record<string, string>> | null;
  readonly present?: boolean | null;
  readonly project_id?: string;
  /** Of a shared point read: its asker, from 1. */
  readonly place?: bigint;
  /** Of a shared point read: left out what is too large for the others to wait for. */
  readonly apart?: boolean | null;
}

/**
 * Obeys the verdict, drops the row that stands for "nothing", and compares every project with the one asked for.
 *
 * @throws Refusal with the verdict; INTERNAL for a row of another project
 */
export const accept = <T extends ParamTypes, R>(
  statement: Statement<T, R>,
  params: Params<T>,
  rows: readonly AnyRow[],
): R[] => {
  const verdict = rows[0]?.verdict;
  if (verdict !== undefined && verdict !== 'OK') {
    throw refusalOf(verdict, rows[0]?.detail ?? undefined);
  }
  const parsed: R[] = [];
  for (const row of rows) {
    if (row.present === null || row.present === false) continue;
    if (statement.scoped && row.project_id !== params.project) {
      throw new Refusal('INTERNAL', 'a row of another project was about to be answered', { outcome: 'unknown' });
    }
    parsed.push(statement.row.parse(row));
  }
  return parsed;
};
