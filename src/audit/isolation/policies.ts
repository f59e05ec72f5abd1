import type { Client } from 'pg';
import type { TenantTable } from './database.ts';

/** A policy as the catalog tells it; conditions in PostgreSQL's own form. */
interface Policy {
  readonly table: string;
  readonly name: string;
  readonly permissive: boolean;
  /** `*` for all commands, `r` for select. */
  readonly command: string;
  readonly roles: readonly string[];
  readonly using: string | null;
  readonly check: string | null;
}

interface Expected {
  readonly command: string;
  readonly roles: readonly string[];
  readonly using: string;
  readonly check: string | null;
}

/** A bare comparison. Wrapped in a sub-select it would be computed once for a statement: a batch would see its first caller's rows. */
const isScope = ({ key }: TenantTable): string =>
  `(${key} = (NULLIF(current_setting('jeex.project_id'::text, true), ''::text))::uuid)`;

/** What definer functions may look at across projects, each table only as far as their work needs. */
const CROSSING: Readonly<Record<string, string>> = {
  projects: 'true',
  project_members: 'true',
  agent_executions: "(status = ANY (ARRAY['PENDING'::text, 'RUNNING'::text]))",
  exports: "(status = ANY (ARRAY['PENDING'::text, 'PROCESSING'::text]))",
  documents: '(search_version <> head_version)',
};

/** Every policy that a tenant table has, by its name. */
const expectedOf = (table: TenantTable): Readonly<Record<string, Expected>> => {
  const crossing = CROSSING[table.name];
  return {
    scope: {
      command: '*',
      roles: ['jeex_app', 'jeex_readonly', 'jeex_system'],
      using: isScope(table),
      check: isScope(table),
    },
    maintenance: { command: '*', roles: ['jeex_backup', 'jeex_owner'], using: 'true', check: 'true' },
    ...(crossing && { crossing: { command: 'r', roles: ['jeex_system'], using: crossing, check: null } }),
  };
};

const readPolicies = async (client: Client): Promise<readonly Policy[]> => {
  const { rows } = await client.query<Policy>(`
    select c.relname as table, p.polname as name, p.polpermissive as permissive, p.polcmd as command,
      array(select coalesce(r.rolname, 'public')::text from unnest(p.polroles) as role left join pg_roles r on r.oid = role
            order by 1) as roles,
      pg_get_expr(p.polqual, p.polrelid) as using, pg_get_expr(p.polwithcheck, p.polrelid) as check
    from pg_policy p join pg_class c on c.oid = p.polrelid
    where c.relnamespace = 'jeex'::regnamespace order by 1, 2`);
  return rows;
};

const differences = (policy: Policy, expected: Expected): string[] => {
  const pairs: readonly [string, string, string][] = [
    ['is for', policy.command, expected.command],
    ['shows', policy.using ?? 'all', expected.using],
    ['takes', policy.check ?? 'all', expected.check ?? 'all'],
  ];
  return [
    ...pairs.filter(([, is, must]) => is !== must).map(([what, is, must]) => `${what} ${is}, not ${must}`),
    ...(policy.permissive ? [] : ['is restrictive']),
    ...expected.roles.filter((role) => !policy.roles.includes(role)).map((role) => `is not for ${role}`),
    ...policy.roles.filter((role) => !expected.roles.includes(role)).map((role) => `is for ${role} too`),
  ];
};

const faultsOf = (table: TenantTable, policies: readonly Policy[]): string[] => {
  const expected = expectedOf(table);
  const missing = Object.keys(expected).filter((name) => !policies.some((policy) => policy.name === name));
  return [
    ...missing.map((name) => `${table.name}: the policy ${name} is missing`),
    ...policies.flatMap((policy) => {
      const must = expected[policy.name];
      const wrong = must ? differences(policy, must) : ['is not one this release knows'];
      return wrong.map((what) => `${table.name}: the policy ${policy.name} ${what}`);
    }),
  ];
};

/** What is wrong with the policies of the tenant tables: one line for each that is missing, unknown or other than it must be. */
export const policyFaults = async (client: Client, tables: readonly TenantTable[]): Promise<string[]> => {
  const policies = await readPolicies(client);
  return tables.flatMap((table) =>
    faultsOf(
      table,
      policies.filter((policy) => policy.table === table.name),
    ),
  );
};
