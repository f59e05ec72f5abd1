import type { Client } from 'pg';
import type { Statement } from '../../db/statement.ts';
import type { Check } from './check.ts';
import { inTransaction, tenantTables } from './database.ts';
import { type PlanNode, planFaults } from './plan.ts';

export type StatementText = Pick<Statement<never, unknown>, 'name' | 'text'>;

const explain = async (client: Client, text: string): Promise<PlanNode> => {
  const { rows } = await client.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(
    `explain (generic_plan, format json) ${text}`,
  );
  const plan = rows[0]?.['QUERY PLAN'][0].Plan;
  if (!plan) throw new Error('PostgreSQL gave no plan');
  return plan;
};

/** How this very database, with its own sizes and statistics, runs each of the service's statements. */
export const planChecks = (client: Client, statements: readonly StatementText[]): readonly Check[] => [
  {
    group: 'plans',
    name: 'every statement reads tenant tables behind the scope, and keeps no row for the next caller',
    run: async () => {
      const tenant = new Set((await tenantTables(client)).map(({ name }) => name));
      const faults: string[] = [];
      for (const { name, text } of statements) {
        const plan = await inTransaction(client, () => explain(client, text));
        faults.push(...planFaults(plan, tenant).map((fault) => `${name}: ${fault}`));
      }
      return { seen: `the plans of ${statements.length} statements`, faults };
    },
  },
];
