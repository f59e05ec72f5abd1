import { definitionChecks } from '../audit/isolation/catalog.ts';
import { loudSettings, type RoleProblem, roleProblems, wallProblems } from '../db/role-check.ts';
import { type Check, failed, Skip, warning } from './check.ts';
import { isEmbedded } from './patient.ts';
import { needSchema } from './schema.ts';
import { settingsOf } from './settings.ts';
import { AUTO_EXPLAIN, judgePlans } from './statistics.ts';

const failures = (problems: readonly RoleProblem[]) => problems.map(({ says, mend }) => failed(says, mend));

/** What the service's role could see or take past its rights. */
export const role: Check = {
  group: 'roles',
  name: "the service's role",
  run: async (patient) => {
    const found = await patient.role();
    return { seen: found.role, faults: failures(roleProblems(found)) };
  },
};

/** The wall between projects: row-level security, on and forced. */
export const walls: Check = {
  group: 'roles',
  name: 'row-level security',
  run: async (patient) => {
    const found = await patient.role();
    if (found.superuser) throw new Skip('nothing keeps a superuser out');
    if ((await patient.schema()).version === 0) throw new Skip('there are no tables yet');
    const open = wallProblems(found);
    return {
      seen: open.length === 0 ? 'forced on every tenant table' : 'not forced everywhere',
      faults: failures(open),
    };
  },
};

const BY_HAND =
  'undo what was changed by hand: no migration makes it so; `jeex-persistence isolation-audit` tells more';

/** Policies, keys, definer functions and rights, as the isolation audit compares them with what migrations make. */
export const definitions: Check = {
  group: 'roles',
  name: 'policies and rights',
  run: async (patient) => {
    await needSchema(patient);
    const checks = definitionChecks(await patient.app());
    const faults: string[] = [];
    for (const { run } of checks) faults.push(...(await run()).faults);
    return { seen: `${checks.length} comparisons`, faults: faults.map((fault) => failed(fault, BY_HAND)) };
  },
};

/** What keeps the content of rows out of the server's log. */
export const quietLog: Check = {
  group: 'roles',
  name: 'content in the log',
  run: async (patient) => {
    const loud = loudSettings(await patient.role());
    const mend = 'run `jeex-persistence bootstrap` as a superuser, or put them into postgresql.conf';
    const faults = [
      ...loud.map((setting) => failed(`not in force for the service: ${setting}`, mend)),
      ...judgePlans(await settingsOf(await patient.app(), AUTO_EXPLAIN)),
    ];
    return { seen: faults.length === 0 ? 'kept out' : 'can get there', faults };
  },
};

/** Who reaches the database around the service. */
export const audited: Check = {
  group: 'roles',
  name: 'pgaudit',
  run: async (patient) => {
    const { audited: logs } = await patient.role();
    if (isEmbedded(patient)) throw new Skip('the embedded PostgreSQL brings none');
    const mend = "put pgaudit into shared_preload_libraries, and set pgaudit.log to 'ddl, role' at least";
    return {
      seen: logs ? 'logs' : 'does not log',
      faults: logs ? [] : [warning('who reaches the database around the service is not on record', mend)],
    };
  },
};
