import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isFresh, requireBackup } from '../src/migrator/backup.ts';
import { MigrationRefused } from '../src/migrator/errors.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';

const destructive = [
  { version: 21, name: 'one_name', reason: 'second names' },
  { version: 22, name: 'no_drafts', reason: 'drafts' },
];
const GUARD = { destructive, haveBackup: false, embedded: false };

const refusal = async (asked: Promise<void>): Promise<string> => {
  const error = await asked.then(
    () => assert.fail('it was not refused'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof MigrationRefused);
  assert.deepEqual(
    error.problems.map(({ code }) => code),
    ['BACKUP'],
  );
  return error.message;
};

suite('a destructive migration', async () => {
  const db = await useTestDatabase();
  const owner = await useOwner(db);

  test('runs on a database that holds nothing of anyone', async () => {
    await owner.query(`insert into sealing_keys (key_id, secret) values (1, decode(repeat('00', 62), 'hex'))`);
    await requireBackup(owner, GUARD);
    await owner.query('delete from sealing_keys');
  });

  test('is refused on one that does: what would be lost, and both ways on', async () => {
    await owner.query(
      `insert into users (email, name, caller, correlation_id) values ('a@b.c', 'A', 'x', gen_random_uuid())`,
    );
    const message = await refusal(requireBackup(owner, GUARD));
    assert.match(message, /lost in 021 one_name \(second names\), 022 no_drafts \(drafts\)/);
    // By whether the server archives.
    assert.match(message, /no record of base backups while archive_mode is off|no record of a base backup/);
    assert.match(message, /within 60 minutes of its end.*`jeex-persistence migrate up --i-have-a-backup`/);
  });

  test('is refused where nobody has let jeex_owner see the end of backups, with how to', async () => {
    const admin = await connectAs(db.adminUrl);
    await admin.query('revoke execute on function pg_ls_waldir from jeex_owner');
    assert.match(
      await refusal(requireBackup(owner, GUARD)),
      /jeex_owner may not see when .*`grant execute on function pg_ls_waldir to jeex_owner`/,
    );
  });

  test('runs with the word that there is a backup, and on an embedded database', async () => {
    await requireBackup(owner, { ...GUARD, haveBackup: true });
    await requireBackup(owner, { ...GUARD, embedded: true });
  });

  test('alone is what a backup is asked for', async () => {
    await requireBackup(owner, { ...GUARD, destructive: [] });
  });
});

test('a backup is fresh for an hour from its end, and not before it', () => {
  const now = new Date('2026-03-29T12:00:00Z');
  const ages: [number, boolean][] = [
    [-1, false],
    [0, true],
    [3_600_000, true],
    [3_600_001, false],
  ];
  for (const [age, fresh] of ages) assert.equal(isFresh(new Date(now.getTime() - age), now), fresh, `${age} ms`);
});
