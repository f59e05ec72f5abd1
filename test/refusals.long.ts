import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newProject, useService } from './support/service.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });

describe('a storm of refusals costs no connection', () => {
  /** The pool may not have needed all of its own before. */
  const FEW = 10;
  const storm = async (reason: string, call: () => Promise<unknown>) => {
    await Promise.all(Array.from({ length: 50 }, () => assert.rejects(call(), { reason })));
    const before = proxy.connections;
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 50 }, () => assert.rejects(call(), { reason })));
    }
    assert.ok(proxy.connections - before <= FEW, `${proxy.connections - before} were made`);
  };

  it('1 000 calls that end in NOT_FOUND', async () => {
    await storm('PROJECT_NOT_FOUND', () => service.projects.getProject({ id: randomUUID() }));
  });
  it('1 000 calls that end in ALREADY_EXISTS', async () => {
    const request = { email: `${randomUUID()}@example.org`, name: 'Ann' };
    await service.users.createUser(request);
    await storm('EMAIL_TAKEN', () => service.users.createUser(request));
  });
  it('1 000 calls that end in ABORTED', async () => {
    const { projectId, editor } = await newProject(service);
    const request = { projectId, documentType: 'idea', content: 'x' };
    await service.documents.appendVersion(request, { actor: editor });
    await storm('VERSION_CONFLICT', () =>
      service.documents.appendVersion({ ...request, expectedVersion: 0 }, { actor: editor }),
    );
  });
});
