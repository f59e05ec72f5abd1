import type { Database } from '../db/pool.ts';
import type { Params, ParamTypes, Statement } from '../db/statement.ts';
import { Refusal } from '../refusal.ts';

/**
 * The same database, which tells of each project that a statement has changed, once that was answered, and so committed; also
 * of one whose answer was lost. A call that its database refused has changed nothing.
 * @param changed must not throw, nor wait for anything
 */
export const announcing = (db: Database, changed: (project: string) => void): Database => {
  const tell = (projects: Iterable<unknown>): void => {
    for (const project of projects) if (typeof project === 'string') changed(project);
  };

  const runChange = async <T extends ParamTypes, R>(
    statement: Statement<T, R>,
    params: Params<T>,
    asker: Parameters<Database['run']>[2],
  ): Promise<R[]> => {
    const named: unknown = params.project;
    try {
      const rows = await db.run(statement, params, asker);
      tell(named === undefined ? rows.map(projectIn) : [named]);
      return rows;
    } catch (error) {
      if (error instanceof Refusal && error.outcome === 'unknown') tell([named]);
      throw error;
    }
  };

  return {
    ...db,
    run: (statement, params, asker) =>
      statement.lane === 'write' ? runChange(statement, params, asker) : db.run(statement, params, asker),
  };
};

/** The project of a row that says itself what it changed, such as a claimed run's. */
const projectIn = (row: unknown): unknown =>
  typeof row === 'object' && row !== null && 'project_id' in row ? row.project_id : undefined;
