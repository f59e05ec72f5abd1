import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Client } from 'pg';
import { bootstrap } from '../../src/db/roles.ts';
import { createTestDatabase, type TestDatabase, testCluster } from '../support/postgres.ts';
import type { Recorded } from './recording.ts';

/** What a release left behind: its data, and what it answered about them. */
export interface Fixture {
  /** The schema jeex and its data as SQL. */
  readonly sql: string;
  readonly answers: readonly Recorded[];
  /** The key ring that opens what is sealed, if anything is. */
  readonly encryptionKeys: string;
}

/** The releases that there are fixtures of. */
export const FIXTURES: readonly string[] = readdirSync(import.meta.dirname, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && /^\d+\.\d+\.\d+$/.test(entry.name))
  .map(({ name }) => name);

/** The fixture of a release. */
export const readFixture = (release: string): Fixture => {
  const file = (name: string): Buffer => readFileSync(join(import.meta.dirname, release, name));
  const lines = gunzipSync(file('answers.jsonl.gz')).toString('utf8').trimEnd().split('\n');
  return {
    sql: gunzipSync(file('data.sql.gz')).toString('utf8'),
    answers: lines.map((line) => JSON.parse(line) as Recorded),
    encryptionKeys: file('encryption_keys').toString('utf8').trim(),
  };
};

/** A database as a release left it, brought as far as this release's `bootstrap` brings it. */
export const loadFixture = async ({ sql }: Fixture): Promise<TestDatabase> => {
  const db = await createTestDatabase({ empty: true });
  const client = new Client({ connectionString: db.adminUrl });
  await client.connect();
  try {
    // The dump makes it.
    await client.query('drop schema jeex');
    await client.query(sql);
  } finally {
    await client.end();
  }
  const { adminUrl, passwords } = testCluster();
  await bootstrap(adminUrl, { database: db.name, passwords });
  return db;
};
