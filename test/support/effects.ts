import { connectAs, type TestDatabase } from './postgres.ts';

/** Sums that every effect moves: rows, their versions, the revisions of all projects, counts of downloads. */
const TOTALS = `select (select coalesce(sum(revision), 0) from projects)::int as revisions,
  (select count(*) from changes)::int as changes,
  (select count(*) from purges)::int as purges,
  (select sum(row_version) from users)::int as users,
  (select coalesce(sum(row_version + quota_documents), 0) from projects)::int as projects,
  (select count(*) from project_members)::int as members,
  (select count(*) from document_versions)::int as versions,
  (select coalesce(sum(row_version), 0) from agent_executions)::int as executions,
  (select coalesce(sum(row_version + download_count), 0) from exports)::int as exports`;

type Totals = Readonly<Record<string, number>>;

/** Tells what calls move of what is in a database that nobody else uses. */
export const useEffects = async (db: TestDatabase): Promise<(work: () => Promise<unknown>) => Promise<Totals>> => {
  const admin = await connectAs(db.adminUrl);
  const totals = async (): Promise<Totals> => (await admin.query<Totals>(TOTALS)).rows[0] as Totals;
  return async (work) => {
    const before = await totals();
    await work();
    const after = await totals();
    return Object.fromEntries(Object.entries(after).map(([name, sum]) => [name, sum - (before[name] ?? 0)]));
  };
};
