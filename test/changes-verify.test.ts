import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { verifyChain } from '../src/changes/verify.ts';
import { describeWalk } from '../src/commands/changes.ts';
import { createDatabase, type Database } from '../src/db/pool.ts';
import { runCommand } from './support/command.ts';
import { append } from './support/exports.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { newProject, useService } from './support/service.ts';

const service = await useService();
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);

const HEAD = 12;

/** Alters a change, and computes its own chain again, so that it follows from the one before it. */
const recomputed = (revision: number): string => `
  update changes set caller = 'somebody else' where project_id = $project and revision = ${revision};
  update changes c set chain = chain_link(coalesce((select b.chain from changes b where b.project_id = $project
    and b.revision = ${revision} - 1), decode(repeat('00', 32), 'hex')), c) where project_id = $project and revision = ${revision}`;

/** A project with three changes of its making and nine versions. */
const newHistory = async (): Promise<{ projectId: string; editor: string }> => {
  const { projectId, editor } = await newProject(service);
  for (let i = 3; i < HEAD; i++) await append(service, projectId, `d${i % 2}`, { actor: editor });
  return { projectId, editor };
};

describe('verifying the chain of a project', () => {
  let db: Database;
  let projectId: string;
  let other: string;
  before(async () => {
    db = await createDatabase({ url: service.db.appUrl, size: 1 });
    projectId = (await newHistory()).projectId;
    other = (await newHistory()).projectId;
    await owner.query('create temp table original as select * from changes where project_id = $1', [projectId]);
  });
  after(() => db.end());

  /** What is found: `fault revision kind`. */
  const faultsOf = async (
    project = projectId,
    kept: readonly (readonly [bigint, Buffer])[] = [],
  ): Promise<string[]> => {
    const { verdict } = await verifyChain(db, project, { kept: new Map(kept) });
    assert.equal(verdict.faultCount, verdict.faults.length);
    return verdict.faults.map(({ fault, revision, kind }) => `${fault} ${revision}${kind === null ? '' : ` ${kind}`}`);
  };

  const chainAt = async (revision: number): Promise<Buffer> =>
    (await owner.query('select chain from changes where project_id = $1 and revision = $2', [projectId, revision]))
      .rows[0]?.chain;

  /** Does what nobody may, looks, and puts everything back. */
  const whileTampered = async (text: string, look: () => Promise<void>): Promise<void> => {
    const { rows } = await owner.query('select revision, chain, earliest_revision from projects where id = $1', [
      projectId,
    ]);
    try {
      await owner.query(text.replaceAll('$project', `'${projectId}'`).replaceAll('$other', `'${other}'`));
      await look();
    } finally {
      const { revision, chain, earliest_revision } = rows[0];
      await owner.query(`delete from changes where chain in (select chain from original) or project_id = $1`, [
        projectId,
      ]);
      await owner.query('insert into changes select * from original');
      await owner.query('update projects set revision = $2, chain = $3, earliest_revision = $4 where id = $1', [
        projectId,
        revision,
        chain,
        earliest_revision,
      ]);
    }
  };

  it('finds nothing in one that nobody has touched, and says what it is', async () => {
    const { verdict, head, headChain, earliest } = await verifyChain(db, projectId, { kept: new Map() });
    assert.deepEqual(verdict, { checked: HEAD, faultCount: 0, faults: [], unproven: [] });
    assert.deepEqual([head, headChain, earliest], [BigInt(HEAD), await chainAt(HEAD), 0n]);
  });

  const altered = 'altered 7 VERSION_APPENDED';
  const ALTERATIONS: Readonly<Record<string, readonly [set: string, faults: readonly string[]]>> = {
    kind: [`kind = 'EXPORT_CREATED'`, ['altered 7 EXPORT_CREATED']],
    resource_id: ['resource_id = gen_random_uuid()', [altered]],
    document_type: [`document_type = 'other'`, [altered]],
    version: ['version = version + 1', [altered]],
    actor_id: ['actor_id = null', [altered]],
    caller: [`caller = 'somebody else'`, [altered]],
    correlation_id: ['correlation_id = gen_random_uuid()', [altered]],
    create_time: [`create_time = create_time + interval '1 microsecond'`, [altered]],
    chain: ['chain = sha256(chain)', [altered]],
    revision: ['revision = 99', ['missing 7', 'added 99 VERSION_APPENDED']],
    project_id: ['project_id = $other, revision = 99', ['missing 7']],
  };
  for (const [column, [set, faults]] of Object.entries(ALTERATIONS)) {
    it(`finds an altered ${column}, and names the change`, async () => {
      await whileTampered(`update changes set ${set} where project_id = $project and revision = 7`, async () => {
        assert.deepEqual(await faultsOf(), faults);
        assert.deepEqual(await faultsOf(other), column === 'project_id' ? ['added 99 VERSION_APPENDED'] : []);
      });
    });
  }

  it('knows every column of the record', async () => {
    const { rows } = await owner.query(`select attname from pg_attribute
      where attrelid = 'changes'::regclass and attnum > 0 and not attisdropped order by 1`);
    assert.deepEqual(rows.map(({ attname }) => attname).sort(), Object.keys(ALTERATIONS).sort());
  });

  const DEEDS: Readonly<Record<string, readonly [deed: string, faults: readonly string[]]>> = {
    'a removed change': ['delete from changes where project_id = $project and revision = 7', ['missing 7']],
    'removed changes': [
      'delete from changes where project_id = $project and revision in (1, 5, 6, 7)',
      ['missing 1', 'missing 5'],
    ],
    'a removed end': ['delete from changes where project_id = $project and revision > 10', ['missing 11']],
    'an end that was removed together with the counter': [
      `delete from changes where project_id = $project and revision > 10; update projects set revision = 10 where id = $project`,
      ['head 10'],
    ],
    'an added change': [
      `insert into changes select (jsonb_populate_record(c, '{"revision": 13}')).* from changes c
       where project_id = $project and revision = 12`,
      ['added 13 VERSION_APPENDED'],
    ],
    'an added change that is counted': [
      `insert into changes select (jsonb_populate_record(c, '{"revision": 13}')).* from changes c
       where project_id = $project and revision = 12; update projects set revision = 13 where id = $project`,
      ['altered 13 VERSION_APPENDED'],
    ],
    'two changes that were swapped': [
      `update changes set revision = 100 where project_id = $project and revision = 5;
       update changes set revision = 5 where project_id = $project and revision = 9;
       update changes set revision = 9 where project_id = $project and revision = 100`,
      [
        'altered 5 VERSION_APPENDED',
        'broken 6 VERSION_APPENDED',
        'altered 9 VERSION_APPENDED',
        'broken 10 VERSION_APPENDED',
      ],
    ],
    'an altered last change': [
      `update changes set caller = 'x' where project_id = $project and revision = 12`,
      ['altered 12 VERSION_APPENDED'],
    ],
    'an altered change with its own chain': [recomputed(7), ['altered 8 VERSION_APPENDED']],
    'an altered first change with its own chain': [recomputed(1), ['altered 2 MEMBER_ADDED']],
    'an altered last change with its own chain': [recomputed(12), ['head 12']],
    'an altered head': [`update projects set chain = sha256(chain) where id = $project`, ['head 12']],
    'a wrong beginning': [
      'update projects set earliest_revision = 2 where id = $project',
      ['added 1 PROJECT_CREATED', 'added 2 MEMBER_ADDED'],
    ],
  };
  for (const [what, [deed, faults]] of Object.entries(DEEDS)) {
    it(`finds ${what}`, async () => {
      await whileTampered(deed, async () => assert.deepEqual(await faultsOf(), faults));
      assert.deepEqual(await faultsOf(), []);
    });
  }

  it('names both changes that can be the altered one, and one where a chain that was kept rules the other out', async () => {
    const texts = async (...kept: (readonly [bigint, Buffer])[]) =>
      (await verifyChain(db, projectId, { kept: new Map(kept) })).verdict.faults.map(({ text, orRevision }) => [
        orRevision,
        text.split(':')[0],
        text.split(': ')[1]?.split(',')[0],
      ]);
    const [kept6, kept7] = [await chainAt(6), await chainAt(7)];
    const NOT_MADE = (revision: number) =>
      `the chain of revision ${revision} is not what its fields and the chain before it make`;
    const KEPT = 'revision 7 VERSION_APPENDED has another chain than the one that was kept';
    const eight = [7n, 'revision 8 VERSION_APPENDED or revision 7 before it is altered', NOT_MADE(8)];
    await whileTampered(recomputed(7), async () => {
      assert.deepEqual(await texts(), [eight]);
      assert.deepEqual(await texts([7n, kept7]), [[null, KEPT, 'it'], eight]);
    });
    await whileTampered(`update changes set caller = 'x' where project_id = $project and revision = 7`, async () => {
      const [either] = await texts();
      assert.deepEqual(either, [6n, 'revision 7 VERSION_APPENDED or revision 6 before it is altered', NOT_MADE(7)]);
      assert.deepEqual(await texts([6n, kept6]), [[null, 'revision 7 VERSION_APPENDED is altered', NOT_MADE(7)]]);
    });
    await whileTampered(`update changes set caller = 'x' where project_id = $project and revision = 1`, async () => {
      assert.deepEqual(await texts(), [[null, 'revision 1 PROJECT_CREATED is altered', NOT_MADE(1)]]);
    });
    const own = `the project's own chain is not that of its last change, revision 12`;
    const kept12 = await chainAt(HEAD);
    await whileTampered(recomputed(12), async () => {
      assert.deepEqual(await texts(), [[null, own, 'one of the two is altered']]);
    });
    await whileTampered('update projects set chain = sha256(chain) where id = $project', async () => {
      assert.deepEqual(await texts([12n, kept12]), [[null, own, 'the former is altered']]);
    });
  });

  it('finds a rewritten history by a chain that was kept, and by nothing else', async () => {
    const [kept6, kept7, kept12] = [await chainAt(6), await chainAt(7), await chainAt(HEAD)];
    const rewrite = `update changes set caller = 'somebody else' where project_id = $project and revision = 7;
      do $$ declare c changes; previous bytea; begin
        select chain into previous from changes where project_id = $project and revision = 6;
        for c in select * from changes where project_id = $project and revision > 6 order by revision loop
          previous := chain_link(previous, c);
          update changes set chain = previous where project_id = c.project_id and revision = c.revision;
        end loop;
        update projects set chain = previous where id = $project;
      end $$`;
    assert.deepEqual(
      await faultsOf(projectId, [
        [6n, kept6],
        [7n, kept7],
        [12n, kept12],
      ]),
      [],
    );
    await whileTampered(rewrite, async () => {
      assert.deepEqual(await faultsOf(), []);
      assert.deepEqual(await faultsOf(projectId, [[6n, kept6]]), []);
      assert.deepEqual(await faultsOf(projectId, [[7n, kept7]]), ['rewritten 7 VERSION_APPENDED']);
      assert.deepEqual(await faultsOf(projectId, [[12n, kept12]]), ['rewritten 12 VERSION_APPENDED']);
    });
    const shortened = `delete from changes where project_id = $project and revision > 10; update projects set revision = 10,
      chain = (select chain from changes where project_id = $project and revision = 10) where id = $project`;
    await whileTampered(shortened, async () => {
      assert.deepEqual(await faultsOf(), []);
      assert.deepEqual(await faultsOf(projectId, [[12n, kept12]]), ['missing 12']);
    });
  });

  it('says after a compaction what is proven and what is not, and proves it with the chain that was kept', async () => {
    const history = await newHistory();
    const kept = (
      await owner.query('select chain from changes where project_id = $1 and revision = 6', [history.projectId])
    ).rows[0].chain;
    await admin.query('select compact_changes($1, 6, 100)', [history.projectId]);
    const verify = async (...pairs: (readonly [bigint, Buffer])[]) =>
      (await verifyChain(db, history.projectId, { kept: new Map(pairs) })).verdict;
    assert.deepEqual(await verify([6n, kept]), { checked: 6, faultCount: 0, faults: [], unproven: [] });
    const without = await verify([3n, kept]);
    assert.equal(without.faultCount, 0);
    assert.match(without.unproven.join('\n'), /^revision 7 VERSION_APPENDED: .*\nrevision 3: its chain was kept/);
    await owner.query(`update changes set caller = 'x' where project_id = $1 and revision = 7`, [history.projectId]);
    assert.equal((await verify()).faultCount, 0);
    assert.deepEqual(
      (await verify([6n, kept])).faults.map(({ fault, revision }) => [fault, revision]),
      [['altered', 7n]],
    );
    await admin.query('select compact_changes($1, 12, 100)', [history.projectId]);
    assert.equal((await verify()).unproven.length, 1);
  });

  it('reads all pages of a long one, while it grows', async () => {
    const { projectId: long, editor } = await newHistory();
    await owner.query(
      `do $$ declare c call := row(null, 'test', gen_random_uuid(), 'test', null, null, null); begin
         for i in 1 .. 21 loop
           perform record_changes(c, '${long}', array_fill('EXPORT_DOWNLOADED'::text, array[100]),
             array_fill(uuidv7(), array[100]), array_fill(null::text, array[100]), array_fill(null::integer, array[100]));
         end loop;
       end $$`,
    );
    const pages: number[] = [];
    const grow = append(service, long, 'd', { actor: editor });
    const { verdict } = await verifyChain(db, long, { kept: new Map(), onPage: (read) => pages.push(read) });
    await grow;
    assert.deepEqual(pages, [1000, 2000]);
    assert.equal(verdict.faultCount, 0);
    await owner.query('delete from changes where project_id = $1 and revision % 50 = 0', [long]);
    const broken = (await verifyChain(db, long, { kept: new Map() })).verdict;
    assert.deepEqual([broken.faultCount, broken.faults.length, broken.unproven.length], [42, 20, 20]);
  });

  it('also walks a deleted project, and none that is not there', async () => {
    const { projectId: deleted } = await newHistory();
    await service.projects.deleteProject({ id: deleted });
    assert.deepEqual(await faultsOf(deleted), []);
    await assert.rejects(faultsOf(randomUUID()), { reason: 'PROJECT_NOT_FOUND' });
  });

  const command = (...args: string[]) =>
    runCommand(['changes', 'verify', ...args], { DATABASE_URL: service.db.appUrl });

  it('is a command whose exit code tells', async () => {
    const head = (await chainAt(HEAD)).toString('hex');
    const line = new RegExp(`^project ${projectId}: 12 changes, chain whole, head 12=${head}\n  whoever keeps`);
    const [whole, badKept] = await Promise.all([
      command('--project', projectId, '--kept', `12=${head}`),
      command('--project', projectId, '--kept', '12=ab'),
    ]);
    assert.deepEqual([whole.code, badKept.code], [0, 2]);
    assert.match(whole.out, line);
    await whileTampered(`delete from changes where project_id = $project and revision in (7, 12)`, async () => {
      const { code, out } = await command('--project', projectId, '--json');
      assert.equal(code, 1);
      const { ok, faults } = JSON.parse(out);
      const missing = { fault: 'missing', kind: null, orRevision: null };
      assert.deepEqual(
        [ok, faults],
        [
          false,
          [
            { ...missing, revision: '7', text: 'revision 7 is missing' },
            { ...missing, revision: '12', text: 'revision 12 is missing' },
          ],
        ],
      );
      const told = describeWalk(projectId, await verifyChain(db, projectId, { kept: new Map() }));
      assert.match(
        told,
        /10 changes, chain broken, 2 faults, head 12=.*\n {2}fault: revision 7 is missing\n {2}fault: .*\n {2}not proven: revision 8/,
      );
    });
  });
});
