import { randomBytes } from 'node:crypto';
import { after } from 'node:test';
import { openChannel } from './client.ts';
import type { TestDatabase } from './postgres.ts';
import { type Clients, clientsOn, ENCRYPTION_KEY } from './service.ts';
import { type Spawned, spawnService } from './spawned.ts';

/** Everything is sent soon. */
const SOON = { OTEL_BSP_SCHEDULE_DELAY: '20', OTEL_BLRP_SCHEDULE_DELAY: '20', OTEL_METRIC_EXPORT_INTERVAL: '100' };

/** A service in a process of its own, since there is one SDK in each, and its clients. */
export const startTelling = async (
  db: TestDatabase,
  env: Readonly<Record<string, string>>,
): Promise<Spawned & Clients> => {
  const service = await spawnService({ DATABASE_URL: db.appUrl, ENCRYPTION_KEYS: ENCRYPTION_KEY, ...SOON, ...env });
  const channel = openChannel(service.grpc);
  after(() => channel.close());
  return { ...service, ...clientsOn(channel) };
};

/** A span of a caller's. */
export interface Parent {
  readonly traceId: string;
  readonly spanId: string;
}

export const newParent = (): Parent => ({
  traceId: randomBytes(16).toString('hex'),
  spanId: randomBytes(8).toString('hex'),
});

/** The header that puts a call below it. @param flags 01: it is recorded */
export const traceparent = ({ traceId, spanId }: Parent, flags = '01'): Readonly<Record<string, string>> => ({
  traceparent: `00-${traceId}-${spanId}-${flags}`,
});
