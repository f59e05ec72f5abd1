import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Client } from 'pg';
import { connect } from '../src/demo/client.ts';
import { firstBrokenLink } from '../src/demo/record.ts';
import { STEPS, sample } from '../src/demo/samples.ts';
import { startTemporaryService } from '../src/demo/service.ts';
import { type Change, ChangeKind } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { runCommand } from './support/command.ts';
import { useService } from './support/service.ts';

const demo = (...args: string[]) => runCommand(['demo', ...args], {});

/** Alters each field of a change in turn: the chain that the demo computes must break there. */
const breakEveryLink = async (address: string, projectId: string): Promise<void> => {
  const connection = connect(address);
  const { changes } = await connection.as({}).changes.listChanges({ projectId, pageSize: 1000 });
  connection.close();
  const place = changes.findIndex(({ kind }) => kind === ChangeKind.VERSION_APPENDED);
  const change = changes[place] as Change;
  const altered: Partial<Change> = {
    projectId: change.resourceId,
    kind: ChangeKind.EXECUTION_STARTED,
    resourceId: projectId,
    documentType: 'other',
    version: change.version + 1,
    actorId: projectId,
    caller: 'other',
    correlationId: projectId,
    chain: '00'.repeat(32),
  };
  assert.equal(firstBrokenLink(changes), null);
  for (const [field, value] of Object.entries(altered)) {
    assert.equal(firstBrokenLink(changes.with(place, { ...change, [field]: value })), change.revision, field);
  }
};

suite('the demo', () => {
  test('plays the main job on a temporary service, tells it, and succeeds', async () => {
    const service = await startTemporaryService();
    try {
      const { code, out, err } = await demo('--address', service.address);
      assert.equal(code, 0, err);
      assert.equal(err, '');
      for (const line of [
        /^1\. People and a project\n {2}owner {8}[0-9a-f-]{36}\n/m,
        /^ {2}✓ reviewer: plan 2, specifications 3, architecture 3 and the end of run [0-9a-f-]{36}, in one transaction$/m,
        /^ {2}✓ an agent that has seen plan 1 cannot write over plan 2: VERSION_CONFLICT$/m,
        /^ {2}✓ going back appends: idea 3 has the words of idea 1, byte for byte$/m,
        /^ {2}✓ architecture 1 to 2: \d+ hunks, \d+ lines added, \d+ removed; applied to 1 they give 2$/m,
        /^ {2}✓ to a stranger the project does not exist: PROJECT_NOT_FOUND$/m,
        /^ {2}✓ the streamed documents have the hashes and sizes of the manifest$/m,
        /^ {2}✓ the timeline of [0-9a-f-]{36}: 8 executions, 13 versions, 1 export, and the changes they made$/m,
        /^ {2}✓ computed again, every link of its chain is right$/m,
        /^All \d{2} facts hold\. The project stays: [0-9a-f-]{36}$/m,
      ]) {
        assert.match(out, line);
      }
      const json = await demo('--address', service.address, '--json');
      const told = JSON.parse(json.out) as { ok: boolean; facts: string[]; projectId: string };
      assert.equal(told.ok, true, 'a second time on the same service, as JSON');
      assert.equal(told.facts.length, out.match(/^ {2}✓/gm)?.length);
      await breakEveryLink(service.address, told.projectId);
    } finally {
      await service.stop();
    }
  });

  test('fails when nothing answers, and says what to do', async () => {
    const { code, err } = await demo('--address', '127.0.0.1:1');
    assert.equal(code, 1);
    assert.match(err, /^jeex-persistence: no service answers there: start one, or leave --address out/);
    const wrong = await demo('--address', 'nowhere');
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /"nowhere" is not an address/);
  });

  test('fails when the service records an altered chain', async () => {
    const service = await useService();
    const owner = new Client({ connectionString: service.db.ownerUrl });
    await owner.connect();
    await owner.query(`create or replace function jeex.chain_link(previous bytea, c jeex.changes) returns bytea
      language sql immutable return sha256(convert_to(c.revision::text, 'UTF8'))`);
    await owner.end();
    const { code, out, err } = await demo('--address', service.grpc);
    assert.equal(code, 1);
    assert.match(
      err,
      /^jeex-persistence: the demo stops, because this does not hold: computed again, every link .* right\n/,
    );
    assert.doesNotMatch(out, /facts hold/);
  });
});

test('every version of a sample document is another one', () => {
  for (const documentType of STEPS) {
    assert.notEqual(sample(documentType, 1), sample(documentType, 2));
    assert.throws(() => sample(documentType, 4), /no sample/);
  }
});
