import type { Client } from 'pg';
import { ROLES, type Role } from '../db/role-table.ts';
import { type Check, type Fault, failed, warning } from './check.ts';

const BOOTSTRAP = 'run `jeex-persistence bootstrap` again, as a superuser';

interface Found {
  readonly name: string;
  readonly login: boolean;
  /** What no role of the service needs. */
  readonly powers: readonly string[];
  readonly connections: number;
  /** As `name=value`, the name in lower case: PostgreSQL keeps `TimeZone`. */
  readonly settings: readonly string[];
  readonly groups: readonly string[];
}

const readRoles = async (client: Client): Promise<ReadonlyMap<string, Found>> => {
  const { rows } = await client.query<Found>(
    `select r.rolname::text as name, r.rolcanlogin as login, r.rolconnlimit as connections,
       array_remove(array[case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'bypassrls' end,
         case when r.rolcreaterole then 'createrole' end, case when r.rolcreatedb then 'createdb' end,
         case when r.rolreplication then 'replication' end], null) as powers,
       array(select lower(split_part(c, '=', 1)) || '=' || substr(c, strpos(c, '=') + 1) from unnest(r.rolconfig) as c) as settings,
       array(select g.rolname::text from pg_roles g where g.oid <> r.oid and pg_has_role(r.oid, g.oid, 'member')) as groups
     from pg_roles r where r.rolname = any ($1)`,
    [ROLES.map(({ name }) => name)],
  );
  return new Map(rows.map((row) => [row.name, row]));
};

/** What is not as the table of roles has it. */
const compare = (role: Role, found: Found | undefined): readonly Fault[] => {
  const { name, settings, connections = -1, memberOf = [] } = role;
  if (found === undefined) return [failed(`${name} is missing`, BOOTSTRAP)];
  const absent = Object.entries(settings).filter(([key, value]) => !found.settings.includes(`${key}=${value}`));
  return [
    ...(found.powers.length > 0
      ? [
          failed(
            `${name} has ${found.powers.join(', ')}`,
            `alter role ${name} ${found.powers.map((p) => `no${p}`).join(' ')}`,
          ),
        ]
      : []),
    ...(role.login === null && found.login ? [failed(`${name} can log in`, `alter role ${name} nologin`)] : []),
    ...absent.map(([key, value]) => warning(`${name} has no ${key} = ${value}`, BOOTSTRAP)),
    ...(found.connections === connections
      ? []
      : [warning(`${name} has the connection limit ${found.connections}, not ${connections}`, BOOTSTRAP)]),
    ...memberOf
      .filter((group) => !found.groups.includes(group))
      .map((group) => warning(`${name} is no member of ${group}`, `grant ${group} to ${name}`)),
  ];
};

/** Every role of the service, with the limits that stand on it. */
export const roles: Check = {
  group: 'roles',
  name: 'all roles',
  run: async (patient) => {
    const found = await readRoles(await patient.app());
    const without = ROLES.filter(({ name, login }) => login !== null && found.get(name)?.login === false);
    const note = without.length > 0 ? `, without a login: ${without.map(({ name }) => name).join(', ')}` : '';
    return {
      seen: `${found.size} of ${ROLES.length}${note}`,
      faults: ROLES.flatMap((role) => compare(role, found.get(role.name))),
    };
  },
};
