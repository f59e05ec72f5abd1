import { parentPort, workerData } from 'node:worker_threads';
import { Health, HealthCheckResponse_ServingStatus as Serving } from '../../src/gen/grpc/health/v1/health_pb.js';
import { DatabaseService, DatabaseStatus } from '../../src/gen/jeex/persistence/v1/database_service_pb.js';
import { clientOf, openChannel } from './client.ts';

/** What a service answered that was asked for its health once each way. */
export interface Round {
  /** How long each answer took, in milliseconds. */
  readonly took: Readonly<Record<string, number>>;
  /** Calls that waited for a connection at that moment, as the health told. */
  readonly waiting: number;
  /** The answers that were not what they should be. */
  readonly wrong: readonly string[];
}

// Asks over and over, until it is told to stop; in a thread of its own, since whoever sends the service load is busy with that.
const { grpc, http } = workerData as { grpc: string; http: string };
const channel = openChannel(grpc);
const health = clientOf(Health, channel);
const database = clientOf(DatabaseService, channel);

let waiting = 0;
const isTold = async (): Promise<boolean> => {
  const { health: told } = await database.getDatabaseHealth({});
  waiting = Number(told?.servicePool?.waiting);
  return told?.status !== DatabaseStatus.UNAVAILABLE && told?.postgresVersion !== '';
};

const WAYS: Readonly<Record<string, () => Promise<boolean>>> = {
  Check: async () => (await health.check({ service: 'readiness' })).status === Serving.SERVING,
  GetDatabaseHealth: isTold,
  '/readyz': async () => (await fetch(`http://${http}/readyz`)).ok,
};

const askRound = async (): Promise<Round> => {
  const took: Record<string, number> = {};
  const wrong: string[] = [];
  for (const [way, ask] of Object.entries(WAYS)) {
    const began = performance.now();
    const right = await ask().catch((error: Error) => error.message);
    took[way] = performance.now() - began;
    if (right !== true) wrong.push(`${way}: ${right}`);
  }
  return { took, waiting, wrong };
};

let going = true;
parentPort?.once('message', () => {
  going = false;
});
while (going) parentPort?.postMessage(await askRound());
channel.close();
