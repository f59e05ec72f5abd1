import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { keySetOf, makeKey } from '../../auth/development.ts';
import { loadConfig } from '../../config.ts';
import { provideDatabase } from '../../db/provide.ts';
import { createLog } from '../../log.ts';
import { migrate } from '../../migrator/migrate.ts';
import { loadRing } from '../../sealing/ring.ts';
import { startService } from '../../service.ts';
import type { AccessLog } from '../access-log.ts';
import type { Signer } from './tokens.ts';

/** A service of the audit's own, in this process. */
export interface Temporary {
  readonly address: string;
  readonly databaseUrl: string;
  /** For people: where the database is. */
  readonly database: string;
  readonly signer: Signer;
}

const ISSUER = 'isolation-audit';
const NO_RECORDS: AccessLog = { admit: () => {}, record: () => {}, close: async () => {} };

/**
 * Starts a service with authentication, on random ports and temporary data, whatever is configured.
 * @param opened what has to be closed again
 */
export const startTemporary = async (opened: AsyncDisposableStack, signal: AbortSignal): Promise<Temporary> => {
  const folder = await mkdtemp(join(tmpdir(), 'isolation-audit-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const key = await makeKey();
  const jwks = join(folder, 'jwks.json');
  await writeFile(jwks, keySetOf([key]));
  const config = loadConfig({
    GRPC_LISTEN: '127.0.0.1:0',
    HTTP_LISTEN: '127.0.0.1:0',
    AUTH_JWKS: jwks,
    AUTH_ISSUER: ISSUER,
    LOG_LEVEL: 'error',
  });
  const log = createLog(config.logLevel);
  const database = await provideDatabase(config, { ephemeral: true, log, signal });
  opened.defer(() => database.stop());
  await migrate(database.migrationUrl, { mode: 'auto', log });
  signal.throwIfAborted();
  const service = await startService({
    config,
    databaseUrl: database.appUrl,
    monitorUrl: database.monitorUrl,
    listenUrl: database.listenUrl,
    ring: loadRing(null, database.secrets?.encryption ?? null),
    accessLog: NO_RECORDS,
    log,
  });
  opened.defer(() => service.stop());
  const audience = config.auth?.audience[0] ?? '';
  return {
    address: service.addresses.grpc,
    databaseUrl: database.appUrl,
    database: database.note,
    signer: { key, issuer: ISSUER, audience },
  };
};
