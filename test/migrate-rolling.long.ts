import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { describeDifference, diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { expectedCatalogue } from '../src/migrator/drift.ts';
import { latestVersion } from '../src/migrator/files.ts';
import { assertRepeats, Callers, Front } from './releases/callers.ts';
import { NEXT_VERSION, nextNumber, useNextRelease } from './releases/tree.ts';
import { runCommand } from './support/command.ts';
import { connectAs, type TestDatabase, useTestDatabase } from './support/postgres.ts';
import { ENCRYPTION_KEY, newUser } from './support/service.ts';
import { type Spawned, spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

// This release and the next one, whose migrations expand the schema, fill the new column, and contract: a rolling update.

/** Serves a database as production does: without the owner. @param entry of another release than this one */
const serve = ({ appUrl }: TestDatabase, entry?: string): Promise<Spawned> =>
  spawnService(
    { DATABASE_URL: appUrl, MIGRATE: 'check', ENCRYPTION_KEYS: ENCRYPTION_KEY, LOG_LEVEL: 'warn' },
    [],
    entry,
  );

const migrateBy = async (entry: string, { ownerUrl }: TestDatabase, ...way: string[]): Promise<void> => {
  const args = ['migrate', ...way, '--i-have-a-backup'];
  const { code, err } = await runCommand(args, { MIGRATION_DATABASE_URL: ownerUrl }, '', entry);
  assert.equal(code, 0, err);
};

const isReady = async ({ http }: Spawned): Promise<boolean> => (await fetch(`http://${http}/readyz`)).ok;

test('this release and the next serve one database while the schema goes from one to the other', async (t) => {
  const db = await useTestDatabase();
  const [expanding, contracting] = [useNextRelease(2), useNextRelease(3)];
  const lint = await runCommand(['migrate', 'lint'], {}, '', contracting);
  assert.equal(lint.code, 0, lint.out + lint.err);
  const old = await serve(db);
  const [one, other] = [useFront(old), useFront(old)];
  const actor = await newUser(one.clients);
  const { project } = await one.clients.projects.createProject({ name: 'Rolling', language: 'en' }, { actor });
  const callers = new Callers(project?.id ?? '', [one, other]);
  callers.start();
  after(() => callers.stop());
  await callers.rounds();
  const first = callers.completed[0];
  assert.ok(first);

  await migrateBy(expanding, db, 'up');
  await callers.rounds();
  const next = await serve(db, expanding);
  other.moveTo(next.grpc);
  await callers.rounds();
  await assertSame(one, other, callers);

  // The schema is ahead of the old release, which may start once more: a pod that comes back.
  const again = await serve(db);
  one.moveTo(again.grpc);
  await old.stop();
  await callers.rounds();
  await assertSame(one, other, callers);

  one.moveTo(next.grpc);
  await callers.rounds();
  assert.ok(await isReady(again));
  await migrateBy(contracting, db, 'up');
  await callers.rounds();
  await callers.stop();
  assert.deepEqual(callers.failures, []);
  await assertRepeats(one, first);
  t.diagnostic(`${callers.completed.length} exports completed`);

  await until(async () => !(await isReady(again)), 'the old release is not ready');
  assert.ok(await isReady(next));
  await assertRefused(db);

  // The way back: the old release can serve it again.
  await migrateBy(contracting, db, 'down', '--to', String(latestVersion()));
  await until(() => isReady(again), 'the old release is ready again');
  one.moveTo(again.grpc);
  await assertRepeats(one, first);
  await assertSchema(db);
});

const useFront = ({ grpc }: Spawned): Front => {
  const front = new Front(grpc);
  after(() => front.close());
  return front;
};

/** The latest exports read the same by two services. */
const assertSame = async (one: Front, other: Front, { completed }: Callers): Promise<void> => {
  for (const { request } of completed.slice(-20)) {
    const { projectId, id } = request;
    const read = async ({ clients }: Front) => {
      // Downloads are counted meanwhile, which changes these two.
      const { downloadCount, etag, ...rest } = (await clients.exports.getExport({ projectId, id })).export ?? {};
      return rest;
    };
    assert.deepEqual(await read(one), await read(other));
  }
};

/** The schema stores the oldest release that can serve it; this one is past that. */
const assertRefused = async ({ appUrl, ownerUrl }: TestDatabase): Promise<void> => {
  const refused = async (args: string[], env: Record<string, string>): Promise<void> => {
    const { code, out, err } = await runCommand(args, env);
    const said = out + err;
    assert.equal(code, 3, said);
    assert.match(said, new RegExp(`oldest release that can serve it knows migration 0*${nextNumber(1)}`));
    assert.match(said, new RegExp(`knows up to 0*${latestVersion()}`));
    assert.match(said, new RegExp(`start release ${NEXT_VERSION.replaceAll('.', '\\.')} or later`));
  };
  const owning = { MIGRATION_DATABASE_URL: ownerUrl };
  const serving = { DATABASE_URL: appUrl, MIGRATE: 'check', ENCRYPTION_KEYS: ENCRYPTION_KEY };
  await Promise.all([
    refused(['serve'], serving),
    refused(['migrate', 'status'], owning),
    refused(['migrate', 'up'], owning),
  ]);
};

/** The schema is that of this release once more. */
const assertSchema = async ({ ownerUrl }: TestDatabase): Promise<void> => {
  const found = await readCatalogue(await connectAs(ownerUrl));
  assert.deepEqual(diffCatalogues(expectedCatalogue().catalogue, found).map(describeDifference), []);
};
