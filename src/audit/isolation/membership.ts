import { randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import type { Check } from './check.ts';
import { inTransaction } from './database.ts';
import { STANDINGS, type Standing } from './expected.ts';
import type { Pair, World } from './world.ts';

const NEEDS = ['reader', 'member', 'editor', 'owner'] as const;
type Need = (typeof NEEDS)[number];

const RANK: Readonly<Record<Standing | Need, number>> = {
  ...{ unknown: -1, stranger: 0, viewer: 1, editor: 2, owner: 3, none: 3 },
  ...{ reader: 1, member: 1 },
};

const expected = (standing: Standing, need: Need): string => {
  if (standing === 'unknown') return 'ACTOR_UNKNOWN';
  if (standing === 'stranger') return 'PROJECT_NOT_FOUND';
  return RANK[standing] >= RANK[need] ? 'OK' : 'ROLE_REQUIRED';
};

interface Entered {
  readonly verdict: string;
  readonly project_id: string | null;
  readonly scope: string | null;
}

/** What entering says, and the scope that the transaction is left with. */
const enter = (client: Client, project: string, actor: string | null, need: Need): Promise<Entered | undefined> =>
  inTransaction(client, async () => {
    const { rows } = await client.query<Omit<Entered, 'scope'>>(
      'select verdict, project_id from enter_project($1, $2, $3)',
      [project, actor, need],
    );
    const scope = await client.query<{ scope: string | null }>(
      `select nullif(current_setting('jeex.project_id', true), '') as scope`,
    );
    return rows[0] && { ...rows[0], scope: scope.rows[0]?.scope ?? null };
  });

const actorOf = (world: World, standing: Standing): string | null =>
  standing === 'none' ? null : standing === 'unknown' ? randomUUID() : world[standing];

const doorways = ({ a, b }: Pair): readonly (readonly [string, string | null, Standing])[] => [
  ...STANDINGS.map((standing) => [`${standing} of the project`, actorOf(b, standing), standing] as const),
  ...(['owner', 'editor', 'viewer'] as const).map(
    (standing) => [`${standing} of another project`, a[standing], 'stranger'] as const,
  ),
];

/** Whether a statement has written: a lock is a write too, which holds up others and takes the time of a commit. */
const leavesTrace = (client: Client, text: string, values: readonly (string | null)[]): Promise<boolean> =>
  inTransaction(client, async () => {
    await client.query(text, [...values]);
    const { rows } = await client.query<{ wrote: boolean }>(
      'select pg_current_xact_id_if_assigned() is not null as wrote',
    );
    return rows[0]?.wrote ?? true;
  });

const locksProject = (client: Client, project: string, actor: string | null): Promise<boolean> =>
  leavesTrace(client, `select from enter_project($1, $2, 'owner', lock => true)`, [project, actor]);

const locksUser = (client: Client, project: string, actor: string | null, user: string): Promise<boolean> =>
  leavesTrace(
    client,
    `select from set_member(row($2, 'isolation-audit', $1, 'SetMember', null, null, null)::call, $1, $3, 'VIEWER')`,
    [project, actor, user],
  );

/** The membership check itself, asked directly in SQL as the service's role. */
export const membershipChecks = (client: Client, pair: () => Promise<Pair>): readonly Check[] => [
  {
    group: 'membership',
    name: 'enter_project lets in who is a member in a high enough role, and leaves everybody else without a scope',
    run: async () => {
      const worlds = await pair();
      const { project } = worlds.b.facts;
      const faults: string[] = [];
      const asked = doorways(worlds);
      for (const [who, actor, standing] of asked) {
        for (const need of NEEDS) {
          const must = expected(standing, need);
          const seen = await enter(client, project, actor, need);
          const inside = must === 'OK' ? project : null;
          if (seen?.verdict !== must) faults.push(`${who}, ${need} needed: ${seen?.verdict}, not ${must}`);
          else if (seen.project_id !== inside || seen.scope !== inside) {
            faults.push(`${who}, ${need} needed: the scope is ${seen.scope ?? 'empty'} after ${must}`);
          }
        }
      }
      return { seen: `${asked.length} actors × ${NEEDS.length} needs`, faults };
    },
  },
  {
    group: 'membership',
    name: 'who is no member takes no lock, and so neither holds up others nor tells by its time what exists',
    run: async () => {
      const worlds = await pair();
      const { project } = worlds.b.facts;
      const strangers = doorways(worlds).filter(([, , standing]) => ['stranger', 'unknown'].includes(standing));
      const faults: string[] = [];
      for (const [who, actor] of strangers) {
        if (await locksProject(client, project, actor)) faults.push(`${who} locks the project`);
        if (await locksUser(client, project, actor, worlds.b.viewer)) faults.push(`${who} locks a user by SetMember`);
      }
      if (!(await locksProject(client, project, worlds.b.owner))) faults.push('its owner does not lock it');
      return { seen: `${strangers.length} actors, of the project and of a user`, faults };
    },
  },
];
