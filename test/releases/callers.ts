import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@grpc/grpc-js';
import { ExecutionStatus } from '../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { openChannel } from '../support/client.ts';
import { FILE } from '../support/exports.ts';
import { type Clients, clientsOn } from '../support/service.ts';
import { until } from '../support/until.ts';

/** Between a caller's rounds, in milliseconds. */
const PAUSE_MS = 20;

/** Where callers find a service: another one takes its place between two calls. */
export class Front {
  clients!: Clients;
  readonly #channels: Client[] = [];

  constructor(grpc: string) {
    this.moveTo(grpc);
  }

  /** Calls that begin from now on go there; those under way end where they are. */
  moveTo(grpc: string): void {
    const channel = openChannel(grpc);
    this.#channels.push(channel);
    this.clients = clientsOn(channel);
  }

  close(): void {
    for (const channel of this.#channels) channel.close();
  }
}

/** An export that was completed: the request, and what it was answered. */
export interface Completed {
  readonly request: { readonly projectId: string; readonly id: string; readonly requestId: string } & typeof FILE;
  readonly etag: string;
}

/** Callers that write and read all the time, through two fronts, and look at what the others have written. */
export class Callers {
  readonly completed: Completed[] = [];
  readonly failures: unknown[] = [];
  readonly #projectId: string;
  readonly #fronts: readonly Front[];
  #rounds = new Map<Front, number>();
  #running: Promise<unknown> | null = null;
  #stopped = false;

  constructor(projectId: string, fronts: readonly Front[]) {
    this.#projectId = projectId;
    this.#fronts = fronts;
  }

  start(): void {
    this.#running = Promise.all(this.#fronts.map((front) => this.#keepCalling(front)));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** Waits until each front has gone some rounds more. @throws the first failure of a call */
  async rounds(more = 3): Promise<void> {
    const before = new Map(this.#rounds);
    const went = (front: Front) => (this.#rounds.get(front) ?? 0) >= (before.get(front) ?? 0) + more;
    await until(() => this.failures.length > 0 || this.#fronts.every(went), `callers have gone ${more} rounds`);
    if (this.failures.length > 0) throw this.failures[0];
  }

  async #keepCalling(front: Front): Promise<void> {
    for (let round = 1; !this.#stopped; round += 1) {
      try {
        await this.#exportOnce(front);
        await this.#runOnce(front);
        await this.#lookBack(front, round);
      } catch (error) {
        this.failures.push(error);
        return;
      }
      this.#rounds.set(front, round);
      // So that the machine has time for what goes on meanwhile.
      await sleep(PAUSE_MS);
    }
  }

  async #exportOnce(front: Front): Promise<void> {
    const projectId = this.#projectId;
    const created = await front.clients.exports.createExport({ projectId });
    const id = created.export?.id ?? '';
    const { leaseToken } = await front.clients.exports.startExport({ projectId, id });
    const request = { ...FILE, projectId, id, leaseToken, filePath: `exports/${id}.zip`, requestId: randomUUID() };
    const completed = await front.clients.exports.completeExport(request);
    assert.equal(completed.export?.filePath, request.filePath);
    this.completed.push({ request, etag: completed.export?.etag ?? '' });
    const { exports } = await front.clients.exports.listExports({ projectId, pageSize: 5 });
    assert.ok(exports.length > 0);
  }

  async #runOnce(front: Front): Promise<void> {
    const projectId = this.#projectId;
    const created = await front.clients.executions.createExecution({ projectId, agentType: 'writer', start: true });
    const lease = { projectId, id: created.execution?.id ?? '', leaseToken: created.leaseToken };
    const content = `by ${lease.id}`;
    await front.clients.executions.completeExecution({ ...lease, versions: [{ documentType: 'idea', content }] });
    const { execution } = await front.clients.executions.getExecution({ projectId, id: lease.id });
    assert.equal(execution?.status, ExecutionStatus.COMPLETED);
    const { version } = await front.clients.documents.getVersion({ projectId, documentType: 'idea' });
    assert.ok(version?.content.startsWith('by '));
  }

  /** One of the exports so far, whoever wrote it: read, written, and its completion asked for again. */
  async #lookBack(front: Front, round: number): Promise<void> {
    const any = this.completed[round % this.completed.length];
    assert.ok(any);
    const { projectId, id, filePath } = any.request;
    assert.equal((await front.clients.exports.getExport({ projectId, id })).export?.filePath, filePath);
    assert.equal((await front.clients.exports.recordDownload({ projectId, id })).export?.filePath, filePath);
    await assertRepeats(front, any);
  }
}

/** A completion that is asked for again answers what it did, whichever release kept the reply. */
export const assertRepeats = async ({ clients }: Front, { request, etag }: Completed): Promise<void> => {
  const again = await clients.exports.completeExport(request);
  assert.deepEqual([again.export?.filePath, again.export?.etag], [request.filePath, etag]);
};
