import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CANCELS, cancelInTheMiddle, inTurns, untilGone } from './support/cancels.ts';
import type { CallError, CallOptions } from './support/client.ts';
import { untilBlocked } from './support/locks.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const POOL_SIZE = 9;
const CALLERS = 16;
const PROJECTS = 4;
const CODE = { CANCELLED: 1, DEADLINE_EXCEEDED: 4 } as const;

describe('calls that are cancelled in the middle', async () => {
  const service = await useService({ env: { POOL_SIZE: `${POOL_SIZE}` } });
  const admin = await connectAs(service.db.adminUrl);
  const projects = await Promise.all(Array.from({ length: PROJECTS }, () => newProject(service)));

  /** What the pool has in use is what leaks; readiness and the sweeper use it for a moment. */
  const servesInFull = async () => {
    const calls = Array.from({ length: POOL_SIZE }, () =>
      service.projects.getProject({ id: projects[0]?.projectId ?? '' }),
    );
    await Promise.all(calls);
  };

  it(`on the pool, ${CANCELS} reads and ${CANCELS} writes`, async (t) => {
    await cancelInTheMiddle(await useTestDatabase(), (figures) => t.diagnostic(figures));
  });

  it(`while they wait for a lock, ${CANCELS} writes: they are gone from PostgreSQL, and leave nothing`, async (t) => {
    const { projectId, editor } = projects[0] ?? assert.fail();
    const blocked = POOL_SIZE - 3;
    const holder = await connectAs(service.db.adminUrl);
    const gone: number[] = [];
    for (let round = 0; round * blocked < CANCELS; round++) {
      await holder.query('begin');
      await holder.query('select from projects where id = $1 for update', [projectId]);
      const client = new AbortController();
      const calls = Array.from({ length: blocked }, () =>
        assert.rejects(
          service.documents.appendVersion(
            { projectId, documentType: 'blocked', content: 'x', ...(round % 2 && { requestId: randomUUID() }) },
            { actor: editor, signal: client.signal },
          ),
          { code: CODE.CANCELLED },
        ),
      );
      await untilBlocked(admin, blocked);
      client.abort();
      gone.push(await untilGone(admin, 'append_version'));
      await Promise.all(calls);
      await holder.query('rollback');
    }
    const { rows } = await admin.query(`select from document_versions where document_type = 'blocked'`);
    assert.equal(rows.length, 0, 'none is applied once the lock is free');
    await servesInFull();
    t.diagnostic(`gone after ${Math.max(...gone).toFixed(0)} ms at most, in ${gone.length} rounds of ${blocked}`);
  });

  it('at any moment, by the client or its deadline: each is wholly there or not, once, and the acknowledged are', async (t) => {
    // Another replica, since Node closes a connection of more than a thousand cancels, and those of the test above count too.
    const { documents } = await useService({ db: service.db, env: { POOL_SIZE: `${POOL_SIZE}` } });
    const sent: string[] = [];
    const acknowledged: string[] = [];
    let cancelled = 0;
    /** How long a call lasts that nobody cancels, in milliseconds. */
    let usualMs = 0;
    const append = async (turn: number, options: CallOptions) => {
      const { projectId, editor } = projects[turn % PROJECTS] ?? assert.fail();
      const content = randomUUID();
      const requestId = turn % 3 === 0 ? randomUUID() : '';
      sent.push(content);
      const began = performance.now();
      try {
        await documents.appendVersion(
          { projectId, documentType: 'moment', content, requestId },
          { actor: editor, ...options },
        );
        acknowledged.push(content);
        usualMs += 0.1 * (performance.now() - began - usualMs);
      } catch (error) {
        const { code } = error as CallError;
        if (code !== CODE.CANCELLED && code !== CODE.DEADLINE_EXCEEDED) throw error;
        cancelled += 1;
      }
    };
    await inTurns(10 * CALLERS, CALLERS, (turn) => append(turn, {}));
    await inTurns(CANCELS, CALLERS, async (turn) => {
      const client = new AbortController();
      // Before it is sent, under way, and after.
      const moment = Math.random() * 2 * usualMs;
      const call = append(turn, turn % 2 ? { signal: client.signal } : { timeout: Math.ceil(moment) });
      await sleep(moment);
      client.abort();
      await call;
    });
    // What is answered now was sent behind all cancels.
    await servesInFull();
    await untilGone(admin, 'append_version');
    const { rows } = await admin.query(
      `select b.content, v.project_id, v.version from document_versions v
       join document_bodies b on b.project_id = v.project_id and b.sha256 = v.content_sha256 where v.document_type = 'moment'`,
    );
    const stored: string[] = rows.map(({ content }) => content);
    assert.equal(new Set(stored).size, stored.length, 'none is there twice');
    assert.deepEqual(
      acknowledged.filter((content) => !stored.includes(content)),
      [],
      'what was acknowledged is there',
    );
    assert.deepEqual(
      stored.filter((content) => !sent.includes(content)),
      [],
      'and nothing else',
    );
    const { rows: changes } = await admin.query(`select from changes where document_type = 'moment'`);
    assert.equal(changes.length, stored.length, 'each with its change');
    const { rows: gaps } = await admin.query(
      `select project_id from document_versions where document_type = 'moment'
       group by project_id having max(version) <> count(*)`,
    );
    assert.deepEqual(gaps, [], 'without a gap');
    t.diagnostic(`${cancelled} of ${CANCELS} cancelled, ${stored.length} stored, ${acknowledged.length} acknowledged`);
  });
});
