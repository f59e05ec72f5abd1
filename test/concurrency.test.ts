import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { Role } from '../src/gen/jeex/persistence/v1/project_service_pb.js';
import { newWorld } from './support/examples.ts';
import { meeting } from './support/locks.ts';
import { outcomeOf } from './support/methods.ts';
import { connectAs } from './support/postgres.ts';
import { newUser, useService } from './support/service.ts';

// Two replicas on one database: nothing here may rest on what one process knows.
const service = await useService();
const replica = await useService({ db: service.db });
const { projects, documents, executions, users } = service;
const admin = await connectAs(service.db.adminUrl);

const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const of = (index: number) => (index % 2 === 0 ? service : replica);

describe('two owners who leave at once', () => {
  const leave = (projectId: string, userId: string, via = service) =>
    via.projects.removeMember({ projectId, userId }, { actor: userId });
  const stepDown = (projectId: string, userId: string, via = service) =>
    via.projects.setMember({ projectId, userId, role: Role.VIEWER }, { actor: userId });
  const erase = (_: string, id: string, via = service) => via.users.deleteUser({ id }, { actor: id });

  const WAYS = [
    [leave, leave],
    [stepDown, leave],
    [erase, leave],
    [stepDown, stepDown],
    [erase, stepDown],
  ] as const;

  it('100 times: one stays', async () => {
    const winners = new Set<number>();
    for (let round = 0; round < 100; round++) {
      const [one, other] = await Promise.all([newUser(service), newUser(replica)]);
      const { project } = await projects.createProject({ name: 'P', language: 'en' }, { actor: one });
      const projectId = project?.id ?? '';
      await projects.setMember({ projectId, userId: other, role: Role.OWNER }, { actor: one });
      const [first, second] = WAYS[round % WAYS.length] as (typeof WAYS)[number];
      const calls = [
        () => outcomeOf(first(projectId, one, service)),
        () => outcomeOf(second(projectId, other, replica)),
      ];
      // Whoever waits first for the row gets it first, so that each way wins half of the time.
      const order = round % 2 === 0 ? calls : calls.toReversed();
      const outcomes = await meeting(admin, projectId, 2, () => order.map((call) => call()));
      assert.deepEqual(outcomes.toSorted(), ['LAST_OWNER', 'OK'], `round ${round}`);
      winners.add(outcomes.indexOf('OK') ^ (round % 2));
      const { rows } = await admin.query(
        `select p.owners, p.members, (select count(*)::int from project_members m where m.project_id = p.id) as found,
           (select count(*)::int from project_members m where m.project_id = p.id and m.role = 'OWNER') as owning
         from projects p where p.id = $1`,
        [projectId],
      );
      assert.deepEqual([rows[0].owners, rows[0].owning, rows[0].members], [1, 1, rows[0].found], `round ${round}`);
    }
    assert.equal(winners.size, 2, 'both callers win now and then');
  });

  it('two users who are each other’s last fellow owner cannot both be erased', async () => {
    for (let round = 0; round < 10; round++) {
      const [one, other] = await Promise.all([newUser(service), newUser(replica)]);
      const { project } = await projects.createProject({ name: 'P', language: 'en' }, { actor: one });
      const projectId = project?.id ?? '';
      await projects.setMember({ projectId, userId: other, role: Role.OWNER }, { actor: one });
      const outcomes = await meeting(admin, projectId, 2, () =>
        [one, other].map((id, i) => outcomeOf(of(i).users.deleteUser({ id }))),
      );
      assert.deepEqual(outcomes.toSorted(), ['LAST_OWNER', 'OK']);
    }
  });
});

describe('50 parallel appends to one document', () => {
  it('become versions 1 to 50, no gap, no error', async () => {
    const { projectId, editor } = await newWorld(service);
    const append = (i: number) =>
      of(i).documents.appendVersion({ projectId, documentType: 'idea', content: `${i}` }, { actor: editor });
    const answers = await Promise.all(times(50, append));
    const versions = answers.map(({ version }) => version?.version ?? 0).toSorted((a, b) => a - b);
    assert.deepEqual(
      versions,
      times(50, (i) => i + 1),
    );
    for (const [i, { version }] of answers.entries()) {
      const found = await documents.getVersion({ projectId, documentType: 'idea', version: version?.version ?? 0 });
      assert.equal(found.version?.content, `${i}`);
    }
  });

  it('with expected_version 0: exactly one succeeds, 49 learn the current version', async () => {
    const { projectId, editor } = await newWorld(service);
    const request = { projectId, documentType: 'idea', expectedVersion: 0 };
    const results = await Promise.allSettled(
      times(50, (i) => of(i).documents.appendVersion({ ...request, content: `${i}` }, { actor: editor })),
    );
    const refused = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    assert.equal(refused.length, 49);
    for (const { reason } of refused) {
      assert.equal(reason.reason, 'VERSION_CONFLICT');
      assert.deepEqual(reason.metadata, { current_version: '1', outcome: 'not_applied' });
    }
    const { versions } = await documents.listVersions({ projectId, documentType: 'idea' });
    assert.equal(versions.length, 1);
  });
});

describe('many writers of one project', () => {
  it('raise its revision without a gap, in the order of their changes, and keep its counters exact', async () => {
    const { projectId, editor } = await newWorld(service);
    const joining = await Promise.all(times(10, () => newUser(service)));
    const content = () => ({ documentType: 'plan', content: randomUUID() });
    const write = async (i: number): Promise<bigint[]> => {
      const via = of(i);
      const actor = { actor: editor };
      switch (i % 5) {
        case 0: {
          const { version } = await via.documents.appendVersion({ projectId, ...content() }, actor);
          return [version?.projectRevision ?? 0n];
        }
        case 1: {
          const entries = [content(), { ...content(), documentType: 'spec' }, content()];
          const { versions } = await via.documents.batchAppendVersions({ projectId, entries }, actor);
          return versions.map(({ projectRevision }) => projectRevision);
        }
        case 2:
          await via.executions.createExecution({ projectId, agentType: 'a', start: true }, actor);
          return [];
        case 3:
          await via.projects.setMember({ projectId, userId: joining[Math.floor(i / 5)] ?? '', role: Role.VIEWER });
          return [];
        default:
          await via.projects.updateProject({ project: { id: projectId, name: `Name ${i}` } }, actor);
          return [];
      }
    };
    const before = (await projects.getProject({ id: projectId })).project?.revision ?? 0n;
    const ranges = await Promise.all(times(50, write));
    for (const range of ranges) {
      assert.ok(
        range.every((revision, i) => revision === (range[0] ?? 0n) + BigInt(i)),
        'a batch takes a contiguous range, in entry order',
      );
    }
    const { project } = await projects.getProject({ id: projectId });
    assert.equal((project?.revision ?? 0n) - before, 70n);
    const { rows } = await admin.query(
      `select array_agg(c.revision::int order by c.revision) as revisions,
         bool_and(c.create_time >= coalesce(earlier, c.create_time)) as ordered, bool_and(intact) as intact
       from (select c.*, lag(c.create_time) over byrevision as earlier,
               c.chain = chain_link(coalesce(lag(c.chain) over byrevision, decode(repeat('00', 32), 'hex')), c::changes) as intact
             from changes c where c.project_id = $1 window byrevision as (order by c.revision)) as c`.replace(
        'c::changes',
        `(c.project_id, c.revision, c.kind, c.resource_id, c.document_type, c.version, c.actor_id, c.caller,
          c.correlation_id, c.create_time, c.chain)::changes`,
      ),
      [projectId],
    );
    assert.deepEqual(
      rows[0].revisions,
      times(Number(project?.revision), (i) => i + 1),
    );
    assert.deepEqual([rows[0].ordered, rows[0].intact], [true, true]);
    const { usage } = await projects.getProjectUsage({ projectId });
    assert.deepEqual([usage?.versions, usage?.documents, usage?.executions[0]?.count], [40n, 2n, 10n]);
  });

  it('cannot write once they are out: no version by a non-member at a later revision', async () => {
    for (let round = 0; round < 20; round++) {
      const { projectId, owner: first, editor } = await newWorld(service);
      const append = (i: number) =>
        outcomeOf(
          of(i).documents.appendVersion({ projectId, documentType: 'idea', content: `${i}` }, { actor: editor }),
        );
      const out = () => outcomeOf(replica.projects.removeMember({ projectId, userId: editor }, { actor: first }));
      const outcomes = await meeting(admin, projectId, 6, () => [...times(3, append), out(), ...times(3, append)]);
      assert.equal(outcomes[3], 'OK');
      const { rows } = await admin.query(
        `select kind, actor_id from changes where project_id = $1 and revision >
           (select revision from changes where project_id = $1 and kind = 'MEMBER_REMOVED')`,
        [projectId],
      );
      assert.deepEqual(rows, [], 'changes after the removal');
      const appended = outcomes.filter((outcome) => outcome === 'OK').length - 1;
      assert.equal(outcomes.filter((outcome) => outcome === 'PROJECT_NOT_FOUND').length, 6 - appended);
      const { versions } = appended
        ? await documents.listVersions({ projectId, documentType: 'idea' })
        : { versions: [] };
      assert.equal(versions.length, appended);
    }
  });

  it('of one e-mail address: one gets it, the others are told', async () => {
    const email = `${randomUUID()}@example.org`;
    const ids = await Promise.all(times(12, () => newUser(service)));
    const outcomes = await Promise.all(
      ids.map((id, i) =>
        outcomeOf(of(i).users.updateUser({ user: { id, email: i % 2 ? email : email.toUpperCase() } })),
      ),
    );
    assert.deepEqual(outcomes.toSorted(), [...times(11, () => 'EMAIL_TAKEN'), 'OK']);
    const created = times(12, (i) => outcomeOf(of(i).users.createUser({ email: `x${email}`, name: 'N' })));
    assert.deepEqual((await Promise.all(created)).toSorted(), [...times(11, () => 'EMAIL_TAKEN'), 'OK']);
    assert.ok((await users.getUserByEmail({ email })).user);
  });

  it('of one run: one completes it, with its documents, and nobody else', async () => {
    const { projectId } = await newWorld(service);
    const { execution, leaseToken } = await executions.createExecution({ projectId, agentType: 'a', start: true });
    const id = execution?.id ?? '';
    const outcomes = await Promise.all(
      times(12, (i) => {
        const held = { projectId, id, leaseToken };
        if (i % 3 === 0) return outcomeOf(of(i).executions.failExecution({ ...held, errorMessage: 'no' }));
        if (i % 3 === 1) return outcomeOf(of(i).executions.cancelExecution({ projectId, id }));
        const versions = [{ documentType: 'idea', content: `${i}` }];
        return outcomeOf(of(i).executions.completeExecution({ ...held, versions }));
      }),
    );
    assert.deepEqual(outcomes.toSorted(), [...times(11, () => 'ILLEGAL_TRANSITION'), 'OK']);
    const { usage } = await projects.getProjectUsage({ projectId });
    assert.equal(usage?.versions, outcomes.indexOf('OK') % 3 === 2 ? 1n : 0n);
    assert.equal(
      usage?.executions.reduce((sum, { count }) => sum + count, 0n),
      1n,
    );
  });
});
