import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import type { DescMethod } from '@bufbuild/protobuf';
import { openChannel } from './support/client.ts';
import { refusedGrpc, sendGrpc } from './support/echo.ts';
import { useExamples } from './support/examples.ts';
import { placesOf, withValue } from './support/fields.ts';
import { callOf, type Fields, isRead, keyOf, METHODS, methodOf } from './support/methods.ts';
import { spawnWithCluster } from './support/own-cluster.ts';
import { connectAs } from './support/postgres.ts';
import { binaryOf, rawGrpc } from './support/raw.ts';
import { clientsOn, type TestService } from './support/service.ts';

const { spawned, database } = await spawnWithCluster();
const channel = openChannel(spawned.grpc);
after(() => channel.close());
const service = { ...clientsOn(channel), channel, http: spawned.http } as TestService;
const admin = await connectAs(database.adminUrl ?? '');

/** Ways out of a text, an identifier, a comment, a dollar quote, a pattern, JSON, a search query and an array. */
const INJECTIONS = [
  `x'); drop table jeex.users; -- $$; delete from projects; $$ /* "`,
  `\\'; select pg_sleep(60); --"},{"role":"OWNER"}{'a',NULL}\u02bc`,
  `' or '1'='1' or a & !b:* | <-> %_\\`,
];

/** What a call may end in that carried such a text: an answer, or a refusal that is the caller's. */
const CALM: ReadonlySet<number> = new Set([0, 3, 5, 6, 7, 9, 10, 16]);

const makeExample = useExamples(service);

/** The texts of all statements that clients have sent to this database. */
const statementTexts = async (): Promise<Set<string>> => {
  const found = await admin.query<{ query: string }>(
    `select distinct s.query from stats.pg_stat_statements s join pg_database d on d.oid = s.dbid
     where d.datname = current_database() and s.userid <> (select oid from pg_roles where rolname = current_user)`,
  );
  return new Set(found.rows.map(({ query }) => query));
};

const intact = async () => {
  const { users, projects } = (
    await admin.query('select (select count(*) from users) as users, (select count(*) from projects) as projects')
  ).rows[0];
  return { users: Number(users), projects: Number(projects) };
};

describe('SQL in a text is a text', () => {
  it('in every field of every RPC and in every header: the database runs the statements it ran before, and no other', async () => {
    for (const method of METHODS) {
      const { request, options } = await makeExample(method);
      await callOf(service, method)(request, options);
    }
    const known = await statementTexts();
    const before = await intact();
    assert.ok(known.size > 50, `${known.size} statements are known`);
    for (const method of METHODS) await attack(method);
    await attackHeaders();
    const added = [...(await statementTexts())].filter((text) => !known.has(text));
    assert.deepEqual(added, []);
    const { users, projects } = await intact();
    assert.ok(users >= before.users && projects >= before.projects, 'nothing has gone');
  });

  it('inside functions too: one alone puts a statement together, from names of its own', async () => {
    const found = await admin.query<{ proname: string }>(
      `select proname from pg_proc where pronamespace = 'jeex'::regnamespace and prosrc ~* '\\mexecute\\M'`,
    );
    assert.deepEqual(
      found.rows.map(({ proname }) => proname),
      ['remove_rows'],
    );
  });
});

/** Puts each text into each field that takes one, and into what a call carries besides. */
const attack = async (method: DescMethod) => {
  const places = placesOf(method.input).filter(({ kind }) => kind === 'text' || kind === 'uuid' || kind === 'mask');
  let example = await makeExample(method);
  for (const place of places) {
    for (const text of place.kind === 'uuid' ? INJECTIONS.slice(0, 2) : INJECTIONS) {
      const value = place.kind === 'mask' ? { paths: [text] } : text;
      const bytes = binaryOf(method, withValue(example.request as Fields, place.keys, value));
      const ended = await rawGrpc(service, method, bytes, example.options.actor);
      assert.ok(CALM.has(ended.code), `${keyOf(method)} ${place.path} = ${text}: ${JSON.stringify(ended)}`);
      if (ended.code === 0 && !isRead(method)) example = await makeExample(method);
    }
  }
};

const HEADERS = ['x-actor-id', 'x-correlation-id', 'authorization', 'traceparent', 'tracestate', 'user-agent'];

/** A header's text comes as far as its rule lets it: bytes beyond ASCII the transport itself refuses. */
const attackHeaders = async () => {
  const method = methodOf('DocumentService/AppendVersion');
  const { request, options } = await makeExample(method);
  for (const header of HEADERS) {
    for (const text of INJECTIONS.filter((each) => /^[ -~]*$/.test(each))) {
      const headers = { 'x-actor-id': options.actor ?? '', [header]: text };
      const answered = await sendGrpc(service.channel, method, binaryOf(method, request as Fields), headers);
      const { code } = answered.error ? refusedGrpc(answered) : { code: 0 };
      assert.ok(CALM.has(code), `${header}: ${text}: ${code}`);
    }
  }
};
