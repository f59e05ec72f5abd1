import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { type Project, ProjectStatus, Role } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { newWorld } from './support/examples.ts';
import { type Fields, outcomeOf } from './support/methods.ts';
import { useOwner } from './support/postgres.ts';
import { newUser, useService } from './support/service.ts';

const service = await useService();
const { projects, documents } = service;
const owner = await useOwner(service.db);

const STATUSES = ['DRAFT', 'ACTIVE', 'COMPLETED', 'ARCHIVED'] as const;
type StatusName = (typeof STATUSES)[number];
const LEGAL: ReadonlySet<string> = new Set([
  'DRAFT>ACTIVE',
  'ACTIVE>COMPLETED',
  'COMPLETED>ACTIVE',
  'ACTIVE>ARCHIVED',
  'COMPLETED>ARCHIVED',
  'ARCHIVED>ACTIVE',
]);
const WAYS: Readonly<Record<StatusName, readonly StatusName[]>> = {
  DRAFT: [],
  ACTIVE: ['ACTIVE'],
  COMPLETED: ['ACTIVE', 'COMPLETED'],
  ARCHIVED: ['ACTIVE', 'ARCHIVED'],
};

describe('the status of a project', () => {
  const setStatus = (id: string, status: StatusName) =>
    projects.updateProject({ project: { id, status: ProjectStatus[status] } });
  const inStatus = async (status: StatusName) => {
    const createdBy = await newUser(service);
    const id = (await projects.createProject({ name: 'P', language: 'en', createdBy })).project?.id ?? '';
    for (const step of WAYS[status]) await setStatus(id, step);
    return id;
  };

  for (const from of STATUSES) {
    for (const to of STATUSES) {
      const legal = from === to || LEGAL.has(`${from}>${to}`);
      it(`${from} to ${to} is ${legal ? 'allowed' : 'refused, by the service and by the database'}`, async () => {
        const id = await inStatus(from);
        const before = (await projects.getProject({ id })).project;
        if (legal) {
          const { project } = await setStatus(id, to);
          assert.equal(project?.status, ProjectStatus[to]);
          assert.equal((project?.revision ?? 0n) - (before?.revision ?? 0n), from === to ? 0n : 1n);
          return;
        }
        await assert.rejects(setStatus(id, to), {
          reason: 'ILLEGAL_TRANSITION',
          metadata: { from, to, outcome: 'not_applied' },
        });
        assert.deepEqual((await projects.getProject({ id })).project, before);
        await assert.rejects(owner.query('update projects set status = $2 where id = $1', [id, to]), {
          code: '23514',
          constraint: 'project_transition',
        });
      });
    }
  }

  it('restricts nothing but itself', async () => {
    const id = await inStatus('ARCHIVED');
    const { version } = await documents.appendVersion({ projectId: id, documentType: 'idea', content: 'x' });
    assert.equal(version?.version, 1);
  });
});

describe('updating a project', () => {
  it('takes what the mask names, or what is populated, and refuses what it does not know', async () => {
    const { projectId: id, editor } = await newWorld(service);
    const update = (project: Fields, paths?: readonly string[]) =>
      projects.updateProject(
        { project: { id, ...project }, ...(paths && { updateMask: { paths: [...paths] } }) },
        { actor: editor },
      );
    const masked = await update({ name: 'Masked', currentStep: 3 }, ['name']);
    assert.deepEqual([masked.project?.name, masked.project?.currentStep], ['Masked', 1]);
    const populated = await update({ currentStep: 4, metadata: { a: { b: [1, 'x', null, true] } } });
    assert.deepEqual([populated.project?.name, populated.project?.currentStep], ['Masked', 4]);
    assert.deepEqual(populated.project?.metadata, { a: { b: [1, 'x', null, true] } });
    const cleared = await update({}, ['metadata']);
    assert.deepEqual(cleared.project?.metadata, {});
    for (const path of ['owner', 'created_by', 'metadata.a', 'currentStep', '', '*', 'revision']) {
      await assert.rejects(update({ name: 'X' }, [path]), { reason: 'INVALID_FIELD', fields: ['update_mask'] }, path);
    }
    for (const path of ['name', 'status', 'current_step', 'visibility']) {
      await assert.rejects(update({}, [path]), { reason: 'INVALID_FIELD', fields: [`project.${path}`] });
    }
    await assert.rejects(update({ currentStep: 5 }), { reason: 'INVALID_FIELD', fields: ['project.current_step'] });
  });

  it('that changes nothing writes nothing', async () => {
    const { projectId: id } = await newWorld(service);
    const { project: before } = await projects.updateProject({ project: { id, name: 'Same', metadata: { a: 1 } } });
    const { project: after } = await projects.updateProject({ project: { id, name: 'Same', metadata: { a: 1 } } });
    assert.deepEqual(after, before);
    assert.deepEqual((await projects.updateProject({ project: { id } })).project, before);
  });

  it('goes by the etag of the request, else of the resource, and that changes with own fields only', async () => {
    const { projectId: id, editor } = await newWorld(service);
    const read = async (): Promise<Project> => (await projects.getProject({ id })).project as Project;
    const first = await read();
    await documents.appendVersion({ projectId: id, documentType: 'idea', content: 'x' });
    await projects.setMember({ projectId: id, userId: editor, role: Role.VIEWER });
    const moved = await read();
    assert.ok(moved.revision > first.revision);
    assert.equal(moved.etag, first.etag);
    const { project: second } = await projects.updateProject({ project: { id, name: 'Two', etag: first.etag } });
    assert.notEqual(second?.etag, first.etag);
    const stale = { project: { id, name: 'Three', etag: first.etag } };
    assert.equal(await outcomeOf(projects.updateProject(stale)), 'ETAG_MISMATCH');
    assert.equal(await outcomeOf(projects.updateProject({ ...stale, etag: second?.etag ?? '' })), 'OK');
    for (const etag of ['v0', 'nonsense', second?.etag ?? '']) {
      assert.equal(await outcomeOf(projects.updateProject({ project: { id, name: 'Four' }, etag })), 'ETAG_MISMATCH');
      assert.equal(await outcomeOf(projects.deleteProject({ id, etag })), 'ETAG_MISMATCH');
    }
    assert.equal(await outcomeOf(projects.deleteProject({ id, etag: (await read()).etag })), 'OK');
    assert.equal(await outcomeOf(projects.undeleteProject({ id, etag: 'v1' })), 'ETAG_MISMATCH');
  });

  it('never changes the language, by the service or by the database', async () => {
    const { projectId: id } = await newWorld(service);
    await assert.rejects(projects.updateProject({ project: { id, language: 'de', name: 'X' } }), {
      reason: 'LANGUAGE_IMMUTABLE',
      fields: ['project.language'],
    });
    const { project } = await projects.updateProject({ project: { id, language: 'en', name: 'X' } });
    assert.deepEqual([project?.language, project?.name], ['en', 'X']);
    await assert.rejects(owner.query(`update projects set language = 'de' where id = $1`, [id]), { code: '23514' });
  });

  for (const [language, fine] of [
    ['en', true],
    ['pt-BR', true],
    ['zh-Hant-TW', true],
    ['', false],
    ['e', false],
    ['english-language', false],
    ['en_US', false],
    ['en--US', false],
    ['12', false],
  ] as const) {
    it(`${fine ? 'takes' : 'refuses'} the language ${JSON.stringify(language)}`, async () => {
      const createdBy = await newUser(service);
      const made = projects.createProject({ name: 'P', language, createdBy });
      if (fine) assert.equal((await made).project?.language, language);
      else await assert.rejects(made, { reason: 'INVALID_FIELD', fields: ['language'] });
    });
  }
});

describe('a replay', () => {
  it('is the first answer, also after the actor’s role has changed', async () => {
    const { projectId: id, owner: first, editor } = await newWorld(service);
    await projects.setMember({ projectId: id, userId: editor, role: Role.OWNER }, { actor: first });
    const request = { project: { id, name: 'Renamed' }, requestId: randomUUID() };
    const answer = await projects.updateProject(request, { actor: editor });
    await projects.setMember({ projectId: id, userId: editor, role: Role.EDITOR }, { actor: first });
    assert.deepEqual(await projects.updateProject(request, { actor: editor }), answer);
    assert.equal(answer.project?.myRole, Role.OWNER);
  });
});
