import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { LOGINS, type Passwords } from '../src/db/role-table.ts';
import { bootstrap, withDatabase } from '../src/db/roles.ts';
import { registry } from '../src/db/statement.ts';
import type { SlowQuery } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { createLog } from '../src/log.ts';
import { lockProject, untilBlocked } from './support/locks.ts';
import { connectAs } from './support/postgres.ts';
import { prepareServer, useServer } from './support/server.ts';
import { newProject, newUser, useService } from './support/service.ts';
import { until } from './support/until.ts';

// A server of its own: one that other tests use forgets statements when too many are counted.
const passwords = Object.fromEntries(
  LOGINS.map((login) => [login, randomBytes(16).toString('hex')]),
) as unknown as Passwords;
const { adminUrl } = await useServer();
const db = await prepareServer(adminUrl, passwords);
const service = await useService({ db });
const admin = await connectAs(db.adminUrl);
const app = await connectAs(db.urlAs('app'));
await bootstrap(adminUrl, { database: 'elsewhere', passwords });

const queriesOf = async (from = service): Promise<SlowQuery[]> =>
  (await from.database.listSlowQueries({ pageSize: 1000 })).queries;

const micros = (time: SlowQuery['totalTime']): bigint =>
  (time?.seconds ?? 0n) * 1_000_000n + BigInt(time?.nanos ?? 0) / 1000n;

/** Only what a test itself makes the service send: chores of its own go on meanwhile. */
const isCalled = ({ name }: SlowQuery): boolean => /^(?:users|projects|documents)\.(?!purge|index)/.test(name);

/** From how many milliseconds on a statement is slow in a service that is to find some. */
const SLOW_MS = 400;

/** Makes a call wait for a row until it is slow. */
const heldUp = async (hold: () => Promise<() => Promise<unknown>>, call: () => Promise<unknown>): Promise<void> => {
  const release = await hold();
  const calling = call();
  await untilBlocked(admin, 1);
  await admin.query('select pg_sleep($1)', [(2 * SLOW_MS) / 1000]);
  await release();
  await calling;
};

const lockUser = async (id: string): Promise<() => Promise<unknown>> => {
  const holder = await connectAs(db.adminUrl);
  await holder.query('begin');
  await holder.query('select from users where id = $1 for update', [id]);
  return () => holder.query('rollback');
};

const jsonOf = (value: unknown): string =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? String(each) : each));

describe('slow queries', () => {
  it('are the service’s statements with PostgreSQL’s own figures, their names and plans, the most costly first', async () => {
    const { projectId, owner } = await newProject(service);
    for (let i = 0; i < 5; i += 1) {
      await service.documents.appendVersion({ projectId, documentType: 'idea', content: `${i}` }, { actor: owner });
    }
    const queries = await queriesOf();
    const { rows } = await admin.query(
      `select queryid::text as id, calls, rows, round(total_exec_time * 1000)::bigint as total,
         round(mean_exec_time * 1000)::bigint as mean, round(max_exec_time * 1000)::bigint as max
       from stats.pg_stat_statements where userid = 'jeex_app'::regrole and toplevel
         and dbid = (select oid from pg_database where datname = current_database())`,
    );
    const figures = new Map(rows.map(({ id, ...rest }) => [id, Object.values(rest).map(Number)]));
    const called = queries.filter(isCalled);
    for (const { queryId, calls, rows, totalTime, meanTime, maxTime, name } of called) {
      const told = [calls, rows, ...[totalTime, meanTime, maxTime].map(micros)];
      assert.deepEqual(told.map(Number), figures.get(queryId), name);
    }
    const callsOf = (name: string) => called.find((query) => query.name === name)?.calls;
    assert.deepEqual([callsOf('users.create'), callsOf('documents.append')], [4n, 5n]);
    const totals = queries.map(({ totalTime }) => micros(totalTime));
    assert.deepEqual(
      totals,
      totals.toSorted((a, b) => Number(b - a)),
    );

    for (const { name, statement, genericPlan } of queries) {
      // Those of the listener serve no call.
      if (/^select( pg_(notify|backend_pid)\(.*)?$/.test(statement)) continue;
      assert.ok(registry.has(name), `${statement} has no name`);
      assert.match(genericPlan, /^[A-Z][\w ]+ .*\(cost=/, name);
      assert.doesNotMatch(genericPlan, /Output:|Query Identifier/, name);
    }
    const [append] = called.filter(({ name }) => name === 'documents.append');
    assert.match(append?.statement ?? '', /append_versions\(row\(\$1::uuid/);
    assert.match(append?.genericPlan ?? '', /append_versions\(ROW\(\$1/);
  });

  it('are each on one page', async () => {
    await service.projects.listProjects({}, { actor: await newUser(service) });
    const whole = (await queriesOf()).filter(isCalled);
    const paged: SlowQuery[] = [];
    let pageToken = '';
    do {
      const page = await service.database.listSlowQueries({ pageSize: 3, pageToken });
      assert.ok(page.queries.length <= 3);
      paged.push(...page.queries);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    assert.ok(whole.length > 3);
    assert.deepEqual(
      paged.filter(isCalled).map(({ queryId }) => queryId),
      whole.map(({ queryId }) => queryId),
    );
  });

  it('are on no page of somebody else’s making', async () => {
    const { nextPageToken } = await service.database.listSlowQueries({ pageSize: 1 });
    const actor = await newUser(service);
    for (const pageToken of ['x', nextPageToken]) {
      await assert.rejects(service.database.listSlowQueries({ pageToken }, { actor }), {
        reason: 'INVALID_PAGE_TOKEN',
      });
    }
    await assert.rejects(service.database.listSlowQueries({ pageSize: -1 }), { reason: 'INVALID_FIELD' });
    await assert.rejects(service.database.listSlowQueries({}, { actor: randomUUID() }), { reason: 'ACTOR_UNKNOWN' });
  });

  it('show no value of a call, nor does the log of slow statements', async () => {
    const lines: string[] = [];
    const log = createLog('trace', { write: (line) => void lines.push(line) });
    const slow = await useService({ db, log, env: { SLOW_QUERY_MS: String(SLOW_MS) } });
    const MARK = `mark${randomUUID().replaceAll('-', '')}`;
    const { projectId, owner } = await newProject(slow);
    const correlationId = randomUUID();
    await heldUp(
      () => lockProject(db, projectId),
      () =>
        slow.documents.appendVersion(
          { projectId, documentType: 'idea', content: MARK, reason: MARK, metadata: { [MARK]: MARK } },
          { actor: owner, correlationId },
        ),
    );
    await heldUp(
      () => lockUser(owner),
      () => slow.users.updateUser({ user: { id: owner, name: MARK, profile: { [MARK]: MARK } } }),
    );
    const told = () => lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'slow statement');
    const find = (statement: string) => told().find((line) => line.statement === statement);
    await until(() => find('documents.append') && find('users.update'), 'both are told');
    assert.equal(find('documents.append').correlationId, correlationId);
    assert.match(find('documents.append').plan, /append_versions\(ROW\(\$1/);
    assert.match(find('users.update').plan, /update_user\(ROW\(\$1/);
    const answer = jsonOf(await queriesOf(slow));
    for (const text of [answer, lines.join('')]) {
      assert.match(text, /append_versions\(/);
      assert.match(text, /update_user\(/);
      assert.doesNotMatch(text, new RegExp(MARK, 'i'));
    }
  });

  it('are never another role’s, nor of another database', async () => {
    const owner = await connectAs(db.ownerUrl);
    await owner.query('select count(*) as by_owner from users');
    const elsewhere = await connectAs(withDatabase(db.urlAs('app'), 'elsewhere'));
    await elsewhere.query('select 1 as elsewhere');
    await app.query('select 1 as by_hand');
    const texts = (await queriesOf()).map(({ statement }) => statement).join('\n');
    assert.match(texts, /select \$1 as by_hand/);
    assert.doesNotMatch(texts, /by_owner|elsewhere/);
  });

  it('come without the text that PostgreSQL keeps of a statement prepared before it began to count', async () => {
    const MARK = randomUUID();
    const byHand = { name: 'by_hand', text: `select '${MARK}' as secret` };
    await app.query(byHand);
    await admin.query('select stats.pg_stat_statements_reset()');
    await app.query(byHand);
    const { rows } = await admin.query('select queryid::text as id from stats.pg_stat_statements where query = $1', [
      byHand.text,
    ]);
    assert.equal(rows.length, 1, 'PostgreSQL keeps it');
    const queries = await queriesOf();
    const found = queries.find(({ queryId }) => queryId === rows[0].id);
    assert.deepEqual([found?.calls, found?.statement, found?.name, found?.genericPlan], [1n, '', '', '']);
    assert.doesNotMatch(jsonOf(queries), new RegExp(MARK));
  });

  it('of the service that were prepared before have the service’s own text', async () => {
    const onOne = await useService({ db, env: { POOL_SIZE: '2' } });
    const { projectId, owner } = await newProject(onOne);
    const read = () => onOne.projects.getProject({ id: projectId }, { actor: owner });
    await read();
    await admin.query('select stats.pg_stat_statements_reset()');
    await read();
    const found = (await queriesOf(onOne)).find(({ name }) => name === 'projects.get');
    assert.match(registry.get('projects.get')?.text ?? '', /'reader'/, 'its text has a constant');
    assert.equal(found?.statement, registry.get('projects.get')?.text);
  });

  it('are what the service sent, also while PostgreSQL counts what its functions do; the monitor sees both', async () => {
    await admin.query(`alter role jeex_app set pg_stat_statements.track = 'all'`);
    await newUser(await useService({ db }));
    const counted = await connectAs(db.urlAs('app'));
    await counted.query('do $$ begin perform 1 as within; end $$');
    const monitor = await connectAs(db.urlAs('monitor'));
    const { rows } = await monitor.query('select query from stats.pg_stat_statements where not toplevel');
    const texts = (await queriesOf()).map(({ statement }) => statement);
    for (const inside of [/insert into users/, / as within/]) {
      assert.ok(rows.some(({ query }) => inside.test(query)));
      assert.ok(!texts.some((text) => inside.test(text)));
    }
    await admin.query('alter role jeex_app reset pg_stat_statements.track');
  });
});

describe('without statistics there are no slow queries', () => {
  it('for a role that may not see them', async () => {
    const unseeing = await useService({ db, env: { MONITOR_DATABASE_URL: '' } });
    assert.deepEqual(await queriesOf(unseeing), []);
  });

  it('where the extension is missing', async () => {
    await admin.query('drop extension pg_stat_statements');
    assert.deepEqual(await queriesOf(), []);
    await admin.query('create extension pg_stat_statements schema stats');
  });

  it('but a monitor that does not reach the database is an error', async () => {
    const url = new URL(db.urlAs('monitor'));
    url.port = '1';
    const blind = await useService({ db, env: { MONITOR_DATABASE_URL: url.href } });
    await assert.rejects(queriesOf(blind), { reason: 'DATABASE_UNAVAILABLE' });
  });
});
