import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PoolerSettings } from '../src/db/pgbouncer.ts';
import { isOutdated, limitsOf } from '../src/db/pool-limits.ts';
import { brokenRules, DIRECT, describePlan, type Plan } from '../src/db/pool-plan.ts';

const direct = (per: string): number =>
  DIRECT.filter((one) => one.per === per).reduce((sum, { connections }) => sum + connections, 0);
/** What each replica and what the database has around the pools. */
const [EACH, ONCE] = [direct('replica'), direct('database')];
const SERVER = { maxConnections: 100, superuserReserved: 3, reserved: 0 };
const POOLER = { pool: 20, reserve: 5, auth: 1, clients: 100, database: 50 };
const PLAN: Plan = { poolSize: 20, maxReplicas: 1, server: SERVER, pooler: POOLER };

/** What is said of a plan, and how to mend it. */
const told = (plan: Plan): string =>
  brokenRules(plan)
    .map(({ says, mend }) => `${says}; ${mend}`)
    .join('\n');

/** A plan whose demand is exactly what there is, by as many connections as it takes. */
const fitting = (plan: Plan): Plan => {
  const pooled = plan.pooler ? plan.pooler.pool + plan.pooler.reserve + plan.pooler.auth : plan.poolSize;
  const maxConnections = plan.maxReplicas * (pooled + EACH) + ONCE + SERVER.superuserReserved;
  return { ...plan, server: { ...SERVER, maxConnections } };
};

describe('the arithmetic of the pools', () => {
  it('holds for one replica with the sizes of the deployment', () => {
    assert.deepEqual(brokenRules(PLAN), []);
    assert.equal(describePlan(PLAN), `1 × (20 + 5 + 1 + ${EACH}) + ${ONCE} = ${26 + EACH + ONCE} of 97 connections`);
  });

  it('counts the limit of a role that connects directly in full', () => {
    assert.equal(DIRECT.find(({ who }) => who === 'jeex_readonly')?.connections, 10);
    assert.equal(DIRECT.find(({ who }) => who === 'jeex_backup')?.connections, 10);
  });

  for (const maxReplicas of [1, 2, 7, 40]) {
    it(`is full to the last connection, and broken with one less: ${maxReplicas} replicas`, () => {
      for (const pooler of [POOLER, null]) {
        const full = fitting({ ...PLAN, maxReplicas, pooler });
        const { maxConnections } = full.server;
        assert.equal(told(full), '');
        const less = { ...full, server: { ...full.server, maxConnections: maxConnections - 1 } };
        assert.match(told(less), new RegExp(`raise max_connections to ${maxConnections}$`));
      }
    });
  }

  it('names values that would do: with each of them alone the rule holds', () => {
    for (const pooler of [POOLER, null]) {
      const plan: Plan = { ...PLAN, maxReplicas: 5, pooler };
      const said = told(plan);
      const [, replicas = 0] = /lower MAX_REPLICAS to (\d+)/.exec(said) ?? [];
      const [, connections = 0] = /raise max_connections to (\d+)/.exec(said) ?? [];
      assert.equal(told({ ...plan, maxReplicas: Number(replicas) }), '');
      assert.notEqual(told({ ...plan, maxReplicas: Number(replicas) + 1 }), '');
      assert.equal(told({ ...plan, server: { ...SERVER, maxConnections: Number(connections) } }), '');
      assert.notEqual(told({ ...plan, server: { ...SERVER, maxConnections: Number(connections) - 1 } }), '');
    }
    const [, pool = 0] = /lower POOL_SIZE to (\d+)/.exec(told({ ...PLAN, maxReplicas: 5, pooler: null })) ?? [];
    assert.equal(told({ ...PLAN, maxReplicas: 5, pooler: null, poolSize: Number(pool) }), '');
    assert.notEqual(told({ ...PLAN, maxReplicas: 5, pooler: null, poolSize: Number(pool) + 1 }), '');
  });

  it('names no value that cannot be', () => {
    const tiny = { ...PLAN, server: { ...SERVER, maxConnections: 20 } };
    assert.match(told(tiny), /; raise max_connections to \d+$/);
    assert.doesNotMatch(told(tiny), /MAX_REPLICAS|default_pool_size/);
  });

  it('takes off what PostgreSQL keeps back, for superusers and for others', () => {
    const full = fitting(PLAN);
    const kept = { ...full, server: { ...full.server, reserved: 4 } };
    assert.match(told(kept), /keeps 7 of them back/);
  });

  const BROKEN: readonly (readonly [string, Partial<Plan>, RegExp])[] = [
    [
      "a service's pool over PgBouncer's",
      { poolSize: 21 },
      /^POOL_SIZE is 21 and PgBouncer's pool 20: .*; lower POOL_SIZE to 20, or raise default_pool_size to 21$/,
    ],
    [
      'too few clients let in',
      { pooler: { ...POOLER, clients: 25 } },
      /^PgBouncer lets 25 clients in, and POOL_SIZE \(20\) .* takes 26; raise max_client_conn to 26$/,
    ],
    [
      'a database limit below the pools',
      { pooler: { ...POOLER, database: 25 } },
      /^PgBouncer opens 25 connections .* need 20 \+ 5 \+ 1; raise max_db_connections to 26, or set it to 0$/,
    ],
  ];
  for (const [what, change, says] of BROKEN) {
    it(`breaks on ${what}`, () => assert.match(told({ ...PLAN, ...change }), says));
  }

  it('holds at the edge of each of them, and without a database limit', () => {
    assert.equal(told({ ...PLAN, pooler: { ...POOLER, clients: 26, database: 26 } }), '');
    assert.equal(told({ ...PLAN, pooler: { ...POOLER, database: 0 } }), '');
  });
});

describe('what a PgBouncer opens', () => {
  const settings: PoolerSettings = {
    version: '1.26.1',
    config: new Map(Object.entries({ default_pool_size: '20', reserve_pool_size: '5', max_client_conn: '100' })),
    databases: [],
    users: [],
  };
  const line = { name: 'jeex', host: null, pool_size: 20, reserve_pool_size: 5, pool_mode: null, max_connections: 50 };
  const reached = { database: 'jeex', role: 'jeex_app' };
  const user = (name: string, pool_size: number | null, reserve_pool_size: number | null) => ({
    ...{ name, pool_size, reserve_pool_size, pool_mode: null },
  });

  it('is by default what its defaults say, with no limit on the database', () => {
    assert.deepEqual(limitsOf(settings, reached), { pool: 20, reserve: 5, auth: 0, clients: 100, database: 0 });
  });

  it('is what the line of the database says, and of the user before it', () => {
    const databases = [{ ...line, pool_size: 8 }];
    assert.equal(limitsOf({ ...settings, databases }, reached).pool, 8);
    const users = [user('jeex_app', 6, null)];
    assert.deepEqual(limitsOf({ ...settings, databases, users }, reached), {
      ...{ pool: 6, reserve: 5, auth: 0, clients: 100, database: 50 },
    });
  });

  it('counts the role that asks for verifiers, which has the same pool unless its line says otherwise', () => {
    const config = new Map([...settings.config, ['auth_user', 'jeex_pooler']]);
    assert.equal(limitsOf({ ...settings, config }, reached).auth, 25);
    assert.equal(limitsOf({ ...settings, config, users: [user('jeex_pooler', 1, 0)] }, reached).auth, 1);
  });

  it('is too old before 1.26.1', () => {
    for (const version of ['1.26.0', '1.25.9', '0.99.99', '', 'unknown'])
      assert.equal(isOutdated(version), true, version);
    for (const version of ['1.26.1', '1.26.10', '1.27.0', '2.0.0']) assert.equal(isOutdated(version), false, version);
  });
});
