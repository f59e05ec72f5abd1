import { once } from 'node:events';
import { after } from 'node:test';
import { Worker } from 'node:worker_threads';
import { type Client, credentials } from '@grpc/grpc-js';
import { View } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { type CallError, openChannel } from './client.ts';
import { type Clients, clientsOn, newUser } from './service.ts';
import type { Stack } from './stack.ts';
import { until } from './until.ts';

/** The document of each project that the load reads and appends to. */
export const DOCUMENT = 'idea';

/** What the thread of a load is told. */
export interface LoadPlan {
  readonly address: string;
  readonly ca: string;
  readonly token: string;
  readonly callers: number;
  /** Callers share them evenly. */
  readonly projects: readonly Project[];
}

export interface Project {
  readonly projectId: string;
  readonly owner: string;
}

/** One attempt of a caller. */
export interface Call {
  readonly caller: number;
  /** Milliseconds since 1970. */
  readonly ended: number;
  /** In milliseconds. */
  readonly took: number;
  /** Of an append that was answered. */
  readonly appended?: { readonly projectId: string; readonly content: string; readonly version: number };
  readonly failure?: Pick<CallError, 'code' | 'reason' | 'message' | 'retryable'>;
}

/** Callers that read and append, each one call after the other; what fails they send again as it was, until it is answered. */
export interface Load {
  readonly plan: LoadPlan;
  /** Every attempt so far. */
  readonly calls: readonly Call[];
  /** Lets every caller end what it is at. @throws what has ended the load's thread */
  stop(): Promise<void>;
}

/** More than any answer takes on a machine that does much else, in milliseconds. */
export const PATIENCE_MS = 90_000;

/** Makes load on a stack, by one token. */
export interface Loader {
  readonly channel: Client;
  readonly clients: Clients;
  /** A new project with a document of one version. */
  newDocument(): Promise<Project>;
  /**
   * Starts callers over TLS, on a connection for each project, in a thread of their own: every one of them has been served when
   * this returns. They stop with the file's tests at the latest.
   */
  start(size: { readonly callers: number; readonly projects: number }): Promise<Load>;
}

export const useLoader = async (stack: Stack): Promise<Loader> => {
  const { grpc: address, ca } = stack;
  const token = await stack.token();
  const channel = openChannel(address, { authorization: `Bearer ${token}` }, credentials.createSsl(Buffer.from(ca)));
  after(() => channel.close());
  const clients = clientsOn(channel);
  const newDocument = async (): Promise<Project> => {
    const owner = await newUser(clients);
    const { project } = await clients.projects.createProject({ name: 'A project', language: 'en' }, { actor: owner });
    const projectId = project?.id ?? '';
    await clients.documents.appendVersion({ projectId, documentType: DOCUMENT }, { actor: owner });
    return { projectId, owner };
  };
  return {
    channel,
    clients,
    newDocument,
    start: async ({ callers, projects: many }) => {
      const projects = await Promise.all(Array.from({ length: many }, newDocument));
      const load = run({ address, ca, token, callers, projects });
      await until(() => servedSince(load, 0, 1) !== undefined, 'every caller is served', PATIENCE_MS);
      return load;
    },
  };
};

const run = (plan: LoadPlan): Load => {
  const calls: Call[] = [];
  const worker = new Worker(new URL('./load-worker.ts', import.meta.url), { workerData: plan });
  worker.on('message', (told: readonly Call[]) => calls.push(...told));
  const ended = once(worker, 'exit');
  // Whoever stops the load is told.
  ended.catch(() => {});
  after(() => worker.terminate());
  const stop = async () => {
    worker.postMessage('stop');
    await ended;
  };
  return { plan, calls, stop };
};

/** How often each reason was given; where there was none, what was said instead. */
export const failuresOf = ({ calls }: Load): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {};
  for (const { failure } of calls) {
    if (failure === undefined) continue;
    const name = failure.reason || `${failure.code}: ${failure.message}`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
};

/**
 * Since when every caller is served again: the last of their first answers since a moment, and since their last failures.
 *
 * @param moment milliseconds since 1970
 * @param inARow answers that each caller has to have had since then
 * @returns milliseconds since 1970; undefined while it is not so
 */
export const servedSince = ({ calls, plan }: Load, moment: number, inARow: number): number | undefined => {
  const served = new Map<number, { first: number; answers: number }>();
  for (const { caller, ended, failure } of calls) {
    if (ended < moment) continue;
    const { first, answers } = served.get(caller) ?? { first: ended, answers: 0 };
    if (failure) served.delete(caller);
    else served.set(caller, { first, answers: answers + 1 });
  }
  const all = [...served.values()];
  if (all.length < plan.callers || all.some(({ answers }) => answers < inARow)) return undefined;
  return Math.max(...all.map(({ first }) => first));
};

/** The contents of a document's versions, in their order from 1 on; null where a version is missing. */
export type Contents = readonly (string | null)[];

const inOrder = (versions: readonly { readonly version: number; readonly content: string }[]): Contents => {
  const last = versions.reduce((most, { version }) => Math.max(most, version), 0);
  const contents: (string | null)[] = Array.from({ length: last }, () => null);
  for (const { version, content } of versions) contents[version - 1] = content;
  return contents;
};

/** What callers were told of each project's document. */
export const acknowledged = ({ calls, plan }: Load): Contents[] => {
  const appended = calls.flatMap((call) => call.appended ?? []);
  const first = { version: 1, content: '' };
  return plan.projects.map(({ projectId }) =>
    inOrder([first, ...appended.filter((own) => own.projectId === projectId)]),
  );
};

/** What each project's document holds. */
export const stored = async ({ clients: { documents } }: Loader, { plan }: Load): Promise<Contents[]> => {
  const read = async ({ projectId, owner }: Project): Promise<Contents> => {
    const versions = [];
    let pageToken = '';
    do {
      const request = { projectId, documentType: DOCUMENT, view: View.FULL, pageSize: 1000, pageToken };
      const page = await documents.listVersions(request, { actor: owner });
      versions.push(...page.versions);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    return inOrder(versions);
  };
  return await Promise.all(plan.projects.map(read));
};
