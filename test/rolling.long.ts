import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { ChangeService } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { DocumentService } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { CallError, clientOf } from './support/client.ts';
import { pathOf } from './support/echo.ts';
import { useTestDatabase } from './support/postgres.ts';
import { ENCRYPTION_KEY } from './support/service.ts';
import { type Spawned, spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

// Two replicas under steady load, of which one after the other is ended by SIGTERM and started again: no call fails.

/** How often; more by hand: ROLLS=100. */
const ROLLS = Number(process.env.ROLLS ?? 2);
const READERS = 8;
const READ_EVERY_MS = 10;
const WRITERS = 4;
const WRITE_EVERY_MS = 40;

const db = await useTestDatabase();
const start = (at: Partial<Record<'GRPC_LISTEN' | 'HTTP_LISTEN', string>> = {}): Promise<Spawned> =>
  spawnService({
    DATABASE_URL: db.appUrl,
    MIGRATE: 'check',
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    LOG_LEVEL: 'warn',
    ...at,
  });

/** A stock client of both replicas, that repeats reads as the service's own advice says, and writes not at all. */
const useClient = (replicas: readonly Spawned[]): Client => {
  const advice = JSON.parse(readFileSync(new URL('../proto/service_config.json', import.meta.url), 'utf8'));
  const client = new Client(`ipv4:${replicas.map(({ grpc }) => grpc).join(',')}`, credentials.createInsecure(), {
    'grpc.service_config': JSON.stringify({ ...advice, loadBalancingConfig: [{ round_robin: {} }] }),
    // A replica that comes back is found sooner; the calls do not depend on it.
    'grpc.max_reconnect_backoff_ms': 1000,
  });
  after(() => client.close());
  return client;
};

interface Answer<M extends DescMethod> {
  readonly message: MessageShape<M['output']>;
  /** The replica that answered. */
  readonly peer: string;
}

const call = <M extends DescMethod>(
  client: Client,
  method: M,
  request: MessageInitShape<M['input']>,
  actor?: string,
): Promise<Answer<M>> =>
  new Promise((resolve, reject) => {
    const same = (bytes: Buffer): Buffer => bytes;
    const metadata = new Metadata();
    if (actor !== undefined) metadata.set('x-actor-id', actor);
    const bytes = Buffer.from(toBinary(method.input, create(method.input, request)));
    const deadline = Date.now() + 30_000;
    const running = client.makeUnaryRequest(
      pathOf(method),
      same,
      same,
      bytes,
      metadata,
      { deadline },
      (error, answer) => {
        const peer = running.getPeer();
        if (error) reject(new CallError(error));
        else
          resolve({ message: fromBinary(method.output, answer ?? Buffer.alloc(0)) as MessageShape<M['output']>, peer });
      },
    );
  });

/** Repeats work until told to stop; what fails is kept. */
const createLoad = () => {
  const failures: string[] = [];
  const loops: Promise<void>[] = [];
  let running = true;
  let done = 0;
  const loop = async (work: () => Promise<unknown>, everyMs: number) => {
    for (; running; await sleep(everyMs)) {
      try {
        await work();
        done += 1;
      } catch (error) {
        failures.push(error instanceof CallError ? `${error.code} ${error.reason} ${error.message}` : String(error));
      }
    }
  };
  return {
    failures,
    done: () => done,
    start: (work: () => Promise<unknown>, everyMs: number) => loops.push(loop(work, everyMs)),
    stop: () => {
      running = false;
      return Promise.all(loops);
    },
  };
};

/** Follows a project from its beginning, and goes on from the last revision wherever a stream has ended. */
const useWatch = (client: Client, projectId: string, actor: string) => {
  const { watchProject } = clientOf(ChangeService, client);
  const controller = new AbortController();
  const seen: bigint[] = [];
  const ends: string[] = [];
  const follow = async () => {
    while (!controller.signal.aborted) {
      try {
        const request = { projectId, afterRevision: seen.at(-1) ?? 0n };
        for await (const { event } of watchProject(request, { actor, signal: controller.signal })) {
          if (event.case === 'change') seen.push(event.value.revision);
        }
      } catch (error) {
        const { code, reason } = error as CallError;
        if (!controller.signal.aborted) ends.push(`${status[code]} ${reason}`);
      }
    }
  };
  const followed = follow();
  const stop = async () => {
    controller.abort();
    await followed;
  };
  after(stop);
  return { seen, ends, stop };
};

test(`no call fails while two replicas are ended ${ROLLS} times`, async (t) => {
  const replicas = await Promise.all([start(), start()]);
  const client = useClient(replicas);
  const created = await call(client, UserService.method.createUser, { email: 'rolling@example.org', name: 'Rolling' });
  const actor = created.message.user?.id ?? '';
  const { message } = await call(
    client,
    ProjectService.method.createProject,
    { name: 'Rolling', language: 'en' },
    actor,
  );
  const projectId = message.project?.id ?? '';
  const watch = useWatch(client, projectId, actor);

  const load = createLoad();
  const answered = new Map<string, number>();
  let appended = 0;
  const note = ({ peer }: { readonly peer: string }) => answered.set(peer, (answered.get(peer) ?? 0) + 1);
  for (let i = 0; i < READERS; i += 1) {
    const read = () => call(client, ProjectService.method.getProject, { id: projectId }, actor);
    load.start(async () => note(await read()), READ_EVERY_MS);
  }
  for (let i = 0; i < WRITERS; i += 1) {
    const request = { projectId, documentType: `document_${i}`, content: 'Some text.' };
    load.start(async () => {
      note(await call(client, DocumentService.method.appendVersion, request, actor));
      appended += 1;
    }, WRITE_EVERY_MS);
  }
  after(load.stop);

  const bothAnswer = async () => {
    answered.clear();
    const both = () => replicas.every(({ grpc }) => (answered.get(grpc) ?? 0) >= 20);
    await until(both, 'both replicas answer', 60_000).catch((cause) => {
      const told = { answered: [...answered], failures: load.failures.slice(0, 5) };
      throw new Error(JSON.stringify(told), { cause });
    });
  };
  for (let roll = 0; roll < ROLLS; roll += 1) {
    await bothAnswer();
    const [old] = replicas.splice(0, 1) as [Spawned];
    old.process.kill('SIGTERM');
    assert.equal(await old.exited, 0, old.log());
    replicas.push(await start({ GRPC_LISTEN: old.grpc, HTTP_LISTEN: old.http }));
  }
  await bothAnswer();
  await load.stop();
  t.diagnostic(`${load.done()} calls, ${load.failures.length} failed, the watch ended ${watch.ends.length} times`);
  assert.deepEqual(load.failures, []);

  const { documents } = (await call(client, DocumentService.method.listDocuments, { projectId }, actor)).message;
  const versions = documents.reduce((sum, { version }) => sum + version, 0);
  assert.equal(versions, appended, 'each answered write was applied once, and no other');
  const { project } = (await call(client, ProjectService.method.getProject, { id: projectId }, actor)).message;
  const last = Number(project?.revision);
  await until(() => watch.seen.length >= last, 'the watch has seen every change');
  await watch.stop();
  assert.deepEqual(
    watch.seen.map(Number),
    Array.from({ length: last }, (_, i) => i + 1),
  );
  for (const end of watch.ends) assert.equal(end, 'UNAVAILABLE SHUTTING_DOWN');
});
