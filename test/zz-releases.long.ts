import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import type { Client } from 'pg';
import { verifyChain } from '../src/changes/verify.ts';
import { createDatabase } from '../src/db/pool.ts';
import { describeDifference, diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { MIGRATOR_TABLES } from '../src/migrator/history.ts';
import { up } from '../src/migrator/migrate.ts';
import { FIXTURES, type Fixture, loadFixture, readFixture } from './releases/fixture.ts';
import { knownFields, type Recorded, record } from './releases/recording.ts';
import { writeToEach } from './releases/writes.ts';
import { runCommand } from './support/command.ts';
import { isRead, methodOf, outcomeOf } from './support/methods.ts';
import { connectAs, createTestDatabase, type TestDatabase } from './support/postgres.ts';
import { type TestService, useService } from './support/service.ts';

// Data that each release made with its own code, brought up to this one.

/** Releases whose stored replies the next one does not open, as its notes on upgrading say. */
const REPLIES_GIVEN_UP = new Set(['0.1.0']);

test('every release has a fixture', () => {
  const changelog = readFileSync(new URL('../CHANGELOG.md', import.meta.url), 'utf8');
  const released = [...changelog.matchAll(/^## \[(\d+\.\d+\.\d+)\]/gm)].map(([, version]) => version);
  assert.deepEqual([...FIXTURES].sort(), released.sort());
});

for (const release of FIXTURES) {
  test(`what ${release} left behind is migrated, and neither lost nor changed`, async () => {
    const fixture = readFixture(release);
    const db = await loadFixture(fixture);
    after(() => db.drop());
    const admin = await connectAs(db.adminUrl);
    const rows = await rowsOf(admin);

    await up(db.ownerUrl, { haveBackup: true });
    assertKept(rows, await rowsOf(admin));
    const service = await upgraded(db, fixture);
    assert.deepEqual(await differences(db), [], 'the schema is that of a fresh database');
    for (const recorded of fixture.answers) {
      const lost = REPLIES_GIVEN_UP.has(release) && !isRead(methodOf(recorded.call));
      if (lost) assert.equal(await outcomeOf(record(service.channel, recorded)), 'REQUEST_ID_REUSED', recorded.call);
      else await assertAnswers(service, recorded);
    }

    assert.ok((await verifiedProjects(db, admin)) >= 3);
    await writeToEach(service, admin);
    await verifiedProjects(db, admin);
  });
}

/** This release on the database of another, after what its notes on upgrading say. */
const upgraded = async (db: TestDatabase, { encryptionKeys: ENCRYPTION_KEYS }: Fixture): Promise<TestService> => {
  const sealed = await runCommand(['keys', 'rotate'], { MIGRATION_DATABASE_URL: db.ownerUrl, ENCRYPTION_KEYS });
  assert.equal(sealed.code, 0, sealed.err);
  return await useService({ db, env: { ENCRYPTION_KEYS } });
};

/** How the schema differs from that of a database that had no other release. */
const differences = async (db: TestDatabase): Promise<string[]> => {
  const fresh = await createTestDatabase();
  after(() => fresh.drop());
  const [expected, found] = await Promise.all(
    [fresh, db].map(async ({ ownerUrl }) => readCatalogue(await connectAs(ownerUrl))),
  );
  assert.ok(expected && found && expected.size > 100);
  return diffCatalogues(expected, found).map(describeDifference);
};

/** By table: how many rows; of the documents' contents also a hash over all. */
type Rows = Record<string, string>;

const rowsOf = async (admin: Client): Promise<Rows> => {
  const tables = await admin.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'jeex'::regnamespace and relkind = 'r' and relname <> all ($1)`,
    [MIGRATOR_TABLES],
  );
  const rows: Rows = {};
  for (const { name } of tables.rows) {
    const counted = await admin.query<{ count: string }>(`select count(*) as count from jeex.${name}`);
    rows[name] = counted.rows[0]?.count ?? 'none';
  }
  const hashed = await admin.query<{ hash: string }>(
    `select encode(sha256(convert_to(string_agg(content, '|' order by project_id, sha256), 'UTF8')), 'hex') as hash
     from document_bodies`,
  );
  return { ...rows, contents: hashed.rows[0]?.hash ?? 'none' };
};

/** What is still there holds what it held. */
const assertKept = (before: Rows, now: Rows): void => {
  const kept = Object.fromEntries(Object.entries(before).filter(([table]) => Object.hasOwn(now, table)));
  assert.ok(Object.keys(kept).length > 10);
  assert.deepEqual(knownFields(now, kept), kept);
};

const assertAnswers = async ({ channel }: TestService, recorded: Recorded): Promise<void> => {
  const { answer } = await record(channel, recorded);
  assert.deepEqual(knownFields(answer, recorded.answer), recorded.answer, JSON.stringify(recorded.request));
};

/** Walks the chain of every project. @returns how many there are */
const verifiedProjects = async ({ appUrl }: TestDatabase, admin: Client): Promise<number> => {
  const { rows } = await admin.query<{ id: string }>('select id from projects where delete_time is null');
  const database = await createDatabase({ url: appUrl, size: 1 });
  try {
    for (const { id } of rows) {
      const { verdict } = await verifyChain(database, id, { kept: new Map() });
      assert.equal(verdict.faultCount, 0, `project ${id}`);
    }
  } finally {
    await database.end();
  }
  return rows.length;
};
