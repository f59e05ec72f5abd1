import type { Client } from 'pg';
import { fence, sql } from '../../db/statement.ts';
import { inTransaction, type TenantTable } from './database.ts';
import type { Pair, World } from './world.ts';

/** Ways to run a statement that have shown one caller's rows to the next where the fence was missing. */
const PLANNERS = [
  'plan_cache_mode = force_generic_plan',
  'plan_cache_mode = force_custom_plan',
  'enable_memoize = on',
  'enable_nestloop = off',
] as const;

interface Row {
  readonly place: string;
  readonly verdict: string;
  readonly project: string | null;
}

type Asked = readonly (readonly [World, string])[];

/** What the service's own fence makes of a query without a where. */
const fenced = ({ name, key }: TenantTable): string =>
  fence(sql.fragment`select t.${sql.identifier([key])}::text as project from ${sql.identifier([name])} t`).sql;

const single = (table: TenantTable): string =>
  `select 1 as place, scope.verdict, fenced.project from enter_project($1, $2, 'member') as scope${fenced(table)}`;

const batch = (table: TenantTable): string =>
  `select asked.place, scope.verdict, fenced.project
   from unnest($1::uuid[], $2::uuid[]) with ordinality as asked (project, actor, place)
   cross join lateral enter_project(asked.project, asked.actor, 'member') as scope${fenced(table)}`;

/** What is wrong with the rows: each place may have those of the project it asked for, and must have some if it may enter. */
const misplaced = (rows: readonly Row[], asked: Asked): string[] =>
  asked.flatMap(([{ facts, viewer }, actor], index) => {
    const mine = rows.filter(({ place }) => Number(place) === index + 1);
    const entered = actor === viewer;
    const wanted = entered ? facts.project : null;
    const foreign = mine.filter(({ project }) => project !== wanted).length;
    if (foreign > 0) return [`shows ${foreign} rows to who may not see them`];
    if (mine.some(({ verdict }) => (verdict === 'OK') !== entered)) return ['lets in who may not enter'];
    return mine.length === 0 ? ['answers nothing'] : [];
  });

const runSingle = async (client: Client, table: TenantTable, asked: Asked): Promise<string[]> => {
  const faults: string[] = [];
  for (const [world, actor] of asked) {
    const { rows } = await client.query<Row>(single(table), [world.facts.project, actor]);
    faults.push(...misplaced(rows, [[world, actor]]));
  }
  return faults;
};

const runBatch = async (client: Client, table: TenantTable, asked: Asked): Promise<string[]> => {
  const { rows } = await client.query<Row>(batch(table), [
    asked.map(([world]) => world.facts.project),
    asked.map(([, actor]) => actor),
  ]);
  return misplaced(rows, asked);
};

/**
 * A query that names no project, behind `enter_project` and the fence of the service's statements, in every shape they have:
 * one after the other in one transaction, and many callers in one statement, one of two let in among them.
 */
export const forgottenWhere = async (client: Client, table: TenantTable, { a, b }: Pair): Promise<string[]> => {
  const shapes: readonly (readonly [string, () => Promise<string[]>])[] = [
    ['a single statement', () => runSingle(client, table, [[a, a.viewer]])],
    [
      'a statement after another project in one transaction',
      () =>
        runSingle(client, table, [
          [b, b.viewer],
          [a, a.viewer],
          [b, a.viewer],
          [b, b.viewer],
        ]),
    ],
    [
      'a batch of two, one refused',
      () =>
        runBatch(client, table, [
          [a, a.viewer],
          [b, a.viewer],
        ]),
    ],
    [
      'a batch of several callers',
      () =>
        runBatch(client, table, [
          [a, a.viewer],
          [b, b.viewer],
          [a, b.viewer],
          [b, b.viewer],
          [a, a.viewer],
        ]),
    ],
  ];
  const faults = new Set<string>();
  for (const planner of PLANNERS) {
    for (const [shape, run] of shapes) {
      const found = await inTransaction(client, async () => {
        await client.query(`set local ${planner}`);
        return run();
      });
      for (const fault of found) faults.add(`${table.name}: ${shape} ${fault}`);
    }
  }
  return [...faults];
};
