import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { loadConfig } from '../../src/config.ts';
import { type Provided, provideDatabase } from '../../src/db/provide.ts';
import { type Spawned, spawnService } from './spawned.ts';

/** A service with a database server of its own, for tests that change or read what all databases of a server share. */
export const spawnWithCluster = async (
  env: Readonly<Record<string, string>> = {},
): Promise<{ spawned: Spawned; database: Provided }> => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-cluster-'));
  after(() => rmSync(folder, { recursive: true }));
  const DATA_DIR = join(folder, 'data');
  const spawned = await spawnService({ DATA_DIR, ...env });
  const database = await provideDatabase(loadConfig({ DATA_DIR }), { share: true, log: { info: () => {} } });
  return { spawned, database };
};
