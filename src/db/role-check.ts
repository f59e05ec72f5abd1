import { z } from 'zod';
import type { Logger } from '../log.ts';
import { whatHappened } from './errors.ts';
import { type Database, first } from './pool.ts';
import { QUIET_LOG } from './role-table.ts';
import { sql, statement } from './statement.ts';

const row = z.object({
  role: z.string(),
  superuser: z.boolean(),
  bypasses: z.boolean(),
  owns: z.array(z.string()),
  /** Roles it could become that see or may do more. */
  member_of: z.array(z.string()),
  /** Tenant tables without a wall. */
  open: z.array(z.string()),
  settings: z.record(z.string(), z.string()),
  audited: z.boolean(),
});
/** A role as PostgreSQL knows it, and the tables that should be closed to it. */
export type InspectedRole = z.infer<typeof row>;

/** Something that must not be, and what undoes it. */
export interface RoleProblem {
  readonly says: string;
  readonly mend: string;
}

/**
 * What PostgreSQL knows of the role that asks, and of the tables that row-level security has to keep from it: those with a
 * project's rows that the role can reach in any way.
 */
const inspect = statement({
  name: 'role_check.inspect',
  params: { settings: 'text[]' },
  row,
  sql: (p) => sql.fragment`
with tenant as (
  select c.oid, c.relname, c.relowner, c.relrowsecurity and c.relforcerowsecurity as walled
  from pg_class c where c.relnamespace = to_regnamespace('jeex') and c.relkind in ('r', 'p')
    and (c.relname = 'projects' or exists (
      select from pg_attribute a where a.attrelid = c.oid and a.attname = 'project_id' and not a.attisdropped))
)
select r.rolname::text as role, r.rolsuper as superuser, r.rolbypassrls as bypasses,
  array(select 'table ' || t.relname from tenant t where t.relowner = r.oid
        union all select 'schema jeex' from pg_namespace n where n.nspname = 'jeex' and n.nspowner = r.oid
        union all select 'database ' || d.datname from pg_database d where d.datname = current_database() and d.datdba = r.oid
        order by 1) as owns,
  array(select o.rolname::text from pg_roles o where o.oid <> r.oid and not r.rolsuper and pg_has_role(r.oid, o.oid, 'MEMBER')
          and (o.rolsuper or o.rolbypassrls or o.rolname in ('jeex_owner', 'jeex_system', 'jeex_backup')
            or exists (select from tenant t where t.relowner = o.oid)) order by 1) as member_of,
  array(select t.relname::text from tenant t where not t.walled
          and has_any_column_privilege(r.oid, t.oid, 'SELECT, INSERT, UPDATE') order by 1) as open,
  (select jsonb_object_agg(s, current_setting(s)) from unnest(${p.settings}) as s) as settings,
  coalesce(current_setting('pgaudit.log', true), 'none') not in ('', 'none') as audited
from pg_roles r where r.rolname = current_user`,
});

const BOOTSTRAP = 'set DATABASE_URL to the role jeex_app, which `jeex-persistence bootstrap` makes';

/**
 * Makes sure that nothing but the scope decides what the service's role sees, and tells the operator once what the server
 * puts on record of its own accord.
 * @throws Error saying what is wrong and what to do, when the role could see or take more, or a table stands open; and when
 *   the database cannot be asked
 */
export const checkRole = async (db: Database, log: Logger): Promise<void> => {
  const found = await inspectRole(db);
  const problems = [...roleProblems(found), ...wallProblems(found)];
  if (problems.length > 0) {
    const lines = problems.map(({ says, mend }) => `  ${says}: ${mend}`).join('\n');
    throw new Error(`the service does not serve as the database role ${found.role}:\n${lines}`);
  }
  const settings = loudSettings(found);
  if (settings.length > 0) {
    log.warn(
      { settings },
      "content can reach PostgreSQL's log: bootstrap as a superuser, or put these into its configuration",
    );
  }
  if (!found.audited) log.info('pgaudit does not log: who reaches the database around the service is not on record');
};

/** Looks at the role that asks. @throws Error when the database cannot be asked */
export const inspectRole = async (db: Database): Promise<InspectedRole> => {
  try {
    return first(await db.run(inspect, { settings: Object.keys(QUIET_LOG) })) as InspectedRole;
  } catch (error) {
    throw new Error(`the database cannot be asked for the service's role: ${whatHappened(error)}`, { cause: error });
  }
};

/** What the role could see or take past its rights. */
export const roleProblems = ({ role, superuser, bypasses, owns, member_of }: InspectedRole): readonly RoleProblem[] => {
  // A superuser may do all the rest too.
  if (superuser) return [{ says: 'it is a superuser', mend: BOOTSTRAP }];
  return [
    ...(bypasses ? [{ says: 'it bypasses row-level security', mend: `alter role ${role} nobypassrls` }] : []),
    ...(owns.length > 0 ? [{ says: `it owns ${owns.join(', ')}`, mend: BOOTSTRAP }] : []),
    ...member_of.map((other) => ({ says: `it can become ${other}`, mend: `revoke ${other} from ${role}` })),
  ];
};

/** The tables that stand open to the role. */
export const wallProblems = ({ superuser, open }: InspectedRole): readonly RoleProblem[] =>
  superuser
    ? []
    : open.map((table) => ({
        says: `row-level security is not forced on ${table}`,
        mend: `alter table jeex.${table} enable row level security, force row level security`,
      }));

/** The settings that keep content out of the server's log and are not in force, as they should be. */
export const loudSettings = ({ settings }: InspectedRole): readonly string[] =>
  Object.entries(QUIET_LOG).flatMap(([name, quiet]) => (settings[name] === quiet ? [] : `${name} = ${quiet}`));
