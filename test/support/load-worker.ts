import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { credentials } from '@grpc/grpc-js';
import { CallError, openChannel } from './client.ts';
import { type Call, DOCUMENT, type LoadPlan, type Project } from './load.ts';
import { type Clients, clientsOn } from './service.ts';

// The thread of a load: it makes the calls that its plan asks for, and tells of each.

/** How often it tells, and how long a caller rests at most before it repeats what has failed, in milliseconds. */
const TELL_MS = 20;
const REST_MS = 100;

type Appended = NonNullable<Call['appended']>;
/** What a caller does once. @param id stays the same when it is repeated */
type Deed = (clients: Clients, project: Project, id: string) => Promise<Appended | undefined>;

const append: Deed = async ({ documents }, { projectId, owner }, id) => {
  const request = { projectId, documentType: DOCUMENT, content: id, requestId: id };
  const { version } = await documents.appendVersion(request, { actor: owner });
  return { projectId, content: id, version: version?.version ?? 0 };
};

const reading =
  (read: (clients: Clients, project: Project) => Promise<unknown>): Deed =>
  async (clients, project) => {
    await read(clients, project);
    return undefined;
  };

/** What callers do in turn. */
const DEEDS: readonly Deed[] = [
  append,
  reading(({ projects }, { projectId, owner }) => projects.getProject({ id: projectId }, { actor: owner })),
  reading(({ documents }, { projectId, owner }) =>
    documents.getVersion({ projectId, documentType: DOCUMENT }, { actor: owner }),
  ),
  reading(({ documents }, { projectId, owner }) =>
    documents.listVersions({ projectId, documentType: DOCUMENT, pageSize: 20 }, { actor: owner }),
  ),
];

let going = true;
let calls: Call[] = [];

const tell = () => {
  if (calls.length > 0) parentPort?.postMessage(calls);
  calls = [];
};

/** Makes a call and puts it on record. @returns whether it was answered */
const attempt = async (caller: number, deed: () => ReturnType<Deed>): Promise<boolean> => {
  const began = performance.now();
  const ended = () => ({ caller, ended: Date.now(), took: Math.round(performance.now() - began) });
  try {
    const appended = await deed();
    calls.push({ ...ended(), ...(appended && { appended }) });
    return true;
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    const { code, reason, message, retryable } = error;
    calls.push({ ...ended(), failure: { code, reason, message, retryable } });
    return false;
  }
};

const call = async (caller: number, clients: Clients, project: Project): Promise<void> => {
  for (let turn = caller; going; turn += 1) {
    const deed = DEEDS[turn % DEEDS.length] ?? append;
    const id = randomUUID();
    while (!(await attempt(caller, () => deed(clients, project, id)))) await sleep(Math.random() * REST_MS);
  }
};

const run = async ({ address, ca, token, callers, projects }: LoadPlan): Promise<void> => {
  const headers = { authorization: `Bearer ${token}` };
  const places = projects.map((project) => ({
    project,
    channel: openChannel(address, headers, credentials.createSsl(Buffer.from(ca))),
    callers: [] as Promise<void>[],
  }));
  const telling = setInterval(tell, TELL_MS);
  for (let caller = 0; caller < callers; caller += 1) {
    const place = places[caller % places.length];
    place?.callers.push(call(caller, clientsOn(place.channel), place.project));
  }
  await Promise.all(places.flatMap((place) => place.callers));
  clearInterval(telling);
  tell();
  for (const { channel } of places) channel.close();
};

// Its port would keep the thread alive.
parentPort?.once('message', () => {
  going = false;
});
await run(workerData as LoadPlan);
