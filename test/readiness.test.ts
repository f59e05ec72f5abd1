import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { migrations } from '../src/database/sql.ts';
import { createDatabase } from '../src/db/pool.ts';
import { createLog } from '../src/log.ts';
import { latestVersion } from '../src/migrator/files.ts';
import { watchReadiness } from '../src/readiness.ts';
import { createHealth } from '../src/rpc/health.ts';
import { useOwner, useTestDatabase } from './support/postgres.ts';
import { until } from './support/until.ts';

const LATEST = latestVersion();

const db = await useTestDatabase();
const owner = await useOwner(db);

/** Watches the database as a release that knows migrations up to a version, until the work has ended. */
const watched = async <T>(
  requiredVersion: number,
  work: (health: { ready: boolean }, said: string[]) => Promise<T>,
): Promise<T> => {
  const health = createHealth([]);
  const said: string[] = [];
  const log = createLog('info', { write: (line) => void said.push(line) });
  const readiness = await watchReadiness({ url: db.appUrl, requiredVersion, health, log });
  try {
    return await work(health, said);
  } finally {
    await readiness.stop();
  }
};

const readyAs = (requiredVersion: number): Promise<boolean> => watched(requiredVersion, async ({ ready }) => ready);

describe('a service is ready', () => {
  it('on the schema it needs, and not before', async () => {
    assert.equal(await readyAs(LATEST), true);
    await watched(LATEST + 1, async (health, said) => {
      assert.equal(health.ready, false);
      assert.match(said.join(''), new RegExp(`the schema is at ${LATEST}, this release needs ${LATEST + 1}`));
    });
  });

  it('on a later release’s schema, until that needs a later release to serve it, and then says so', async (t) => {
    t.after(() => owner.query('delete from schemaversion where version > $1', [LATEST]));
    await watched(LATEST, async (health, said) => {
      const insert = `insert into schemaversion (version, name, md5, run_at, oldest_release) values ($1, 'later', '', now(), $2)`;
      await owner.query(insert, [LATEST + 1, LATEST]);
      assert.equal(await readyAs(LATEST), true);
      assert.deepEqual([health.ready, said], [true, []]);
      await owner.query(insert, [LATEST + 2, LATEST + 1]);
      await until(() => !health.ready, 'readiness turns');
      const reason = `the schema is at ${LATEST + 2}, .* knows migration ${LATEST + 1}; this one knows up to ${LATEST}`;
      assert.match(said.join(''), new RegExp(`"level":"warn".*${reason}.*"msg":"not ready"`));
      assert.equal(await readyAs(LATEST + 1), true, 'the release after this one can serve it');
      await owner.query('delete from schemaversion where version = $1', [LATEST + 2]);
      await until(() => health.ready, 'readiness turns again');
    });
  });

  it('where a migrator that kept less made the table of migrations, which is told as far as it goes', async () => {
    await owner.query(
      'alter table schemaversion drop column release, drop column duration_ms, drop column oldest_release',
    );
    assert.equal(await readyAs(LATEST), true);
    const pool = await createDatabase({ url: db.appUrl, size: 1 });
    const [first] = await pool.run(migrations, { actor: null });
    await pool.end();
    assert.ok(first?.version === 1 && first.name === 'tables');
    assert.deepEqual([first.release, first.duration_ms, first.oldestRelease], [null, null, null]);
  });
});
