import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { latestVersion, number } from '../src/migrator/files.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { versionsOf } from './support/migrations.ts';
import { useOwner, useTestDatabase } from './support/postgres.ts';
import { PUT_BACK_OTHERWISE } from './support/put-back.ts';

/** What `bootstrap` makes, before any migration. */
const BOOTSTRAPPED = [
  'grant on schema jeex to jeex_app',
  'grant on schema jeex to jeex_owner',
  'grant on schema jeex to jeex_system',
  'schema jeex',
];

suite("the service's own migrations, undone and applied again", async () => {
  const latest = latestVersion();
  const everything = Array.from({ length: latest }, (_, index) => index + 1);

  test('leave nothing at 0, and the same schema at the newest', async () => {
    const db = await useTestDatabase();
    const owner = await useOwner(db);
    const before = await readCatalogue(owner);
    assert.deepEqual(versionsOf(await down(db.ownerUrl, 0)), everything.toReversed());
    assert.deepEqual([...(await readCatalogue(owner)).keys()], BOOTSTRAPPED);
    assert.deepEqual(versionsOf(await up(db.ownerUrl)), everything);
    assert.deepEqual(diffCatalogues(before, await readCatalogue(owner)), []);
  });

  const db = await useTestDatabase();
  const owner = await useOwner(db);
  await down(db.ownerUrl, 0);
  for (const version of everything) {
    test(`${number(version)} alone: its undo takes back all it does, and it can be done again`, async () => {
      const before = await readCatalogue(owner);
      assert.deepEqual(versionsOf(await up(db.ownerUrl, { to: version })), [version]);
      const done = await readCatalogue(owner);
      assert.notDeepEqual(diffCatalogues(before, done), []);
      assert.deepEqual(versionsOf(await down(db.ownerUrl, version - 1)), [version]);
      const changed = diffCatalogues(before, await readCatalogue(owner)).map(({ identity }) => identity);
      const otherwise = PUT_BACK_OTHERWISE[version];
      assert.deepEqual(changed, otherwise ? [`function jeex.${otherwise.name}(${otherwise.parameters})`] : []);
      assert.deepEqual(versionsOf(await up(db.ownerUrl, { to: version })), [version]);
      assert.deepEqual(diffCatalogues(done, await readCatalogue(owner)), []);
    });
  }
});
