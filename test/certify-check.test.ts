import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Faults, PROMISES, type Promised } from '../src/certify/faults.ts';
import { foreignIn, Look } from '../src/certify/look.ts';
import { codeOf, Marks } from '../src/certify/marks.ts';
import { Random } from '../src/certify/random.ts';
import { pageOf, verdictOf } from '../src/certify/report.ts';
import { Sequence } from '../src/certify/sequence.ts';
import { Tally } from '../src/certify/tally.ts';
import { AgentExecutionSchema } from '../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import type { Change } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { DocumentVersionSchema } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ExportSchema } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { MARKS, PLACE, type Told } from './support/certified.ts';
import { feedAt, MISREAD } from './support/certify-misreadings.ts';
import { TAMPERED, told, twoWrites } from './support/certify-tamperings.ts';

/** What is wrong, by promise, each with its first line. */
const wrongIn = (faults: Faults): readonly (readonly [Promised, string])[] =>
  (Object.keys(PROMISES) as Promised[])
    .filter((promise) => faults.count(promise) > 0)
    .map((promise) => [promise, faults.told(promise)[0] ?? '']);

describe('a history', () => {
  it('that a good service made has no fault', async () => {
    const story = told();
    story.audit();
    assert.deepEqual(wrongIn(await story.faults()), []);
  });

  it('has none either when nobody knows of a write whether it was applied, and it was, or was not', async () => {
    const story = told();
    for (const applied of [true, false]) {
      const operation = story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
      const call = story.begin(operation);
      if (applied) story.apply(operation);
      story.end(call, 'unknown');
    }
    story.audit();
    assert.deepEqual(wrongIn(await story.faults()), []);
  });

  it('has none when a retry answers for the try whose reply was lost', async () => {
    const story = told();
    const operation = story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
    const lost = story.begin(operation);
    const made = story.apply(operation);
    story.end(lost, 'unknown');
    story.read({ kind: 'listChanges' }, [feedAt(story, made)]);
    story.end(story.begin(operation), 'answered');
    story.audit();
    assert.deepEqual(wrongIn(await story.faults()), []);
  });

  it('has none when calls at the same time see one another in either order', async () => {
    const story = told();
    const before = story.head;
    const call = story.begin(story.ledger.ask({ kind: 'listChanges', project: 0, actor: 'viewer' }));
    twoWrites(story, 'after');
    story.end(call, 'answered', [feedAt(story, before + 1)]);
    story.audit();
    assert.deepEqual(wrongIn(await story.faults()), []);
  });

  for (const [what, tamper, promise, sign] of [...TAMPERED, ...MISREAD]) {
    it(`is blamed when ${what}`, async () => {
      const story = told();
      tamper(story);
      story.audit();
      const faults = await story.faults();
      assert.match(faults.told(promise).join('\n'), sign, JSON.stringify(wrongIn(faults), null, 1));
    });
  }

  const LEFT_OUT: readonly (readonly [string, Parameters<Told['audit']>[0], RegExp])[] = [
    [
      'a version',
      ({ sight, type, version }) => sight === 'version' && type === 0 && version === 2,
      /idea version 2, recorded at revision 3, is not there/,
    ],
    ['a run', ({ sight }) => sight === 'run', /run 40, recorded at revision 8, is not there/],
    ['an export', ({ sight }) => sight === 'export', /export 56, recorded at revision 10, is not there/],
  ];
  for (const [what, leftOut, sign] of LEFT_OUT) {
    it(`is blamed when the row of ${what} is gone`, async () => {
      const story = told();
      story.audit(leftOut);
      assert.match((await story.faults()).told('row').join('\n'), sign);
    });
  }

  it('is blamed when a row that is left is another than was recorded', async () => {
    const story = told();
    story.audit();
    story.read({ kind: 'auditVersions' }, [{ ...story.version(0, 2, 3, 2), code: codeOf(1, 0) }]);
    assert.match((await story.faults()).told('row').join('\n'), /idea version 2 has the content of 8, not 16/);
  });
});

describe('a watcher', () => {
  const { changes } = told();
  const SEEN: readonly (readonly [string, readonly Change[], Promised | null, RegExp])[] = [
    ['is sent everything once, in order', changes, null, /^$/],
    ['misses a change', changes.toSpliced(3, 1), 'eventMissed', /was not sent revisions 4 to 4/],
    ['misses the last one', changes.slice(0, -1), 'eventMissed', /was not sent revisions 11 to 11/],
    ['is sent one twice', [...changes.slice(0, 4), ...changes.slice(3)], 'eventTwice', /was sent revision 4 after 4/],
    [
      'is sent two the wrong way round',
      changes.with(3, changes[4] as Change).with(4, changes[3] as Change),
      'eventTwice',
      /was sent revision 4 after 5/,
    ],
    [
      'is sent an altered one',
      changes.with(3, { ...(changes[3] as Change), version: 9 }),
      'eventOther',
      /revision 4 VERSION_APPENDED/,
    ],
    [
      'is sent one of another project',
      [...changes, { ...(changes[3] as Change), projectId: PLACE.users.owner }],
      'foreign',
      /was sent a change of/,
    ],
  ];
  for (const [what, events, promise, sign] of SEEN) {
    it(`${what}: ${promise ?? 'no fault'}`, () => {
      const faults = new Faults();
      const sequence = new Sequence(PLACE, 1, faults);
      for (const event of events) sequence.take(event);
      sequence.end(changes.length);
      assert.match(promise === null ? '' : faults.told(promise).join('\n'), sign);
      assert.equal(faults.total === 0, promise === null);
    });
  }

  it('has missed what a heartbeat says was sent', () => {
    const faults = new Faults();
    new Sequence(PLACE, 1, faults).beat(2);
    assert.match(faults.told('eventMissed').join(), /revisions 1 to 2/);
  });
});

describe('an answer', () => {
  const code = codeOf(3, 0);
  const content = MARKS.content(code);
  const versionOf = (text: string, hashed = text) =>
    create(DocumentVersionSchema, {
      projectId: PLACE.id,
      documentType: 'idea',
      version: 1,
      content: text,
      contentSha256: createHash('sha256').update(hashed).digest('hex'),
      sizeBytes: BigInt(Buffer.byteLength(hashed)),
      correlationId: MARKS.correlationId({ operation: 3, attempt: 1 }),
      projectRevision: 2n,
    });
  const look = (faults: Faults) => new Look(MARKS, faults);

  it('is read: which operation wrote it, and what', () => {
    const faults = new Faults();
    const seen = look(faults).version(PLACE, 'version', versionOf(content), true);
    assert.deepEqual(seen, { sight: 'version', type: 0, version: 1, revision: 2, code, writer: 3 });
    assert.equal(faults.total, 0);
  });

  const WRONG: readonly (readonly [string, string, string, RegExp])[] = [
    ['has another hash', content, content.replace('certify', 'CERTIFY'), /is not what its hash says/],
    ['is of another size', content, `${content} `, /is not what its hash says/],
    ['is cut short', content.slice(0, -1), content.slice(0, -1), /is not what was written/],
    [
      'is of another run',
      new Marks('f'.repeat(16)).content(code),
      new Marks('f'.repeat(16)).content(code),
      /is not what was written/,
    ],
  ];
  for (const [what, text, hashed, sign] of WRONG) {
    it(`is blamed when its content ${what}`, () => {
      const faults = new Faults();
      look(faults).version(PLACE, 'version', versionOf(text, hashed), true);
      assert.match(faults.told('content').join('\n'), sign);
    });
  }

  it('is blamed when an export streams other than its manifest names', () => {
    const faults = new Faults();
    const { documentType, version, contentSha256, sizeBytes } = versionOf(content);
    const entries = [{ documentType, version, contentSha256, sizeBytes }];
    const exported = create(ExportSchema, { id: 'e', projectId: PLACE.id, manifest: { entries } });
    look(faults).streamed(PLACE, exported, [versionOf(content)]);
    assert.equal(faults.total, 0);
    look(faults).streamed(PLACE, exported, []);
    look(faults).streamed(PLACE, exported, [versionOf(content.replace('idea', 'IDEA'), content)]);
    assert.equal(
      faults.told('content').filter((text) => text.endsWith('export e is not what its manifest names')).length,
      2,
    );
  });

  it('is blamed when a run has another input or output than it was given', () => {
    const payload = (text: string) => ({ contentType: 'text/plain', data: Buffer.from(text) });
    const [given, gave] = [look(new Faults()).input(code), look(new Faults()).output(9)];
    for (const [input, output, count] of [
      [given, gave, 0],
      [given, '', 0],
      [`${given}0`, gave, 1],
      [given, `${gave}x`, 1],
    ] as const) {
      const faults = new Faults();
      const correlationId = MARKS.correlationId({ operation: 3, attempt: 1 });
      const run = {
        correlationId,
        attempt: 1,
        input: payload(input),
        ...(output !== '' && { output: payload(output) }),
      };
      look(faults).run(PLACE, create(AgentExecutionSchema, run), { input: true, output: true });
      assert.equal(faults.count('content'), count, `${input}, ${output}`);
    }
  });

  it('is blamed when a list of changes leaves one out', () => {
    const faults = new Faults();
    const { changes } = told();
    look(faults).feed(PLACE, changes.slice(4, 7), 4, false);
    assert.equal(faults.total, 0);
    look(faults).feed(PLACE, changes.slice(4, 7).toSpliced(1, 1), 4, false);
    assert.match(faults.told('revisionGap').join(), /revision 6 is missing in a list of changes/);
  });

  it('names the projects of its foreign rows, however deep', () => {
    const rows = {
      versions: [{ projectId: PLACE.id }, { projectId: 'another', data: new Uint8Array(3) }],
      project: null,
    };
    assert.deepEqual(foreignIn(rows, PLACE.id), ['another']);
  });
});

describe('the verdict', () => {
  const page = (faults: Faults): string =>
    pageOf(verdictOf({ seed: 7, seconds: 1, calls: 2, changes: 3, tally: new Tally(), faults, left: [] }));

  it('certifies when every promise holds', () => {
    assert.match(page(new Faults()), /CERTIFIED: every promise holds \(seed 7\)/);
  });

  for (const promise of Object.keys(PROMISES) as Promised[]) {
    it(`does not when there are ${PROMISES[promise]}, and says so`, () => {
      const faults = new Faults();
      faults.add(promise, 'what happened');
      const text = page(faults);
      assert.match(text, new RegExp(`${PROMISES[promise]} \\.+ 1\\n {6}what happened`));
      assert.match(text, /NOT CERTIFIED: 1 of \d+ promises broken/);
    });
  }
});

it('a seed makes the same choices again, another one others, and each stream its own', () => {
  const drawn = (seed: number, stream: number): string => {
    const random = new Random(seed, stream);
    return Array.from({ length: 20 }, () => random.below(100)).join();
  };
  assert.equal(drawn(5, 1), drawn(5, 1));
  assert.equal(new Set([drawn(5, 1), drawn(6, 1), drawn(5, 2)]).size, 3);
});
