import type { Promised } from '../../src/certify/faults.ts';
import { codeOf } from '../../src/certify/marks.ts';
import { type Change, ChangeKind } from '../../src/gen/jeex/persistence/v1/change_service_pb.js';
import { PLACE, rechained, renumbered, row, Told } from './certified.ts';

/** A history with something of everything in it, that a good service has made. */
export const told = (): Told => {
  const story = new Told();
  story.append(0);
  story.append(0);
  story.append(1);
  story.write({ kind: 'batchAppend', type: 0, count: 3 });
  const run = story.write({ kind: 'createRun', target: 1 }, ({ operation }) => [
    row('run', { version: 1, code: codeOf(operation, 0) }),
  ]);
  story.claims = codeOf(run.operation, 0);
  story.write({ kind: 'claimRun', actor: 'system', project: 0xffff }, () => [
    row('run', { version: 2, code: story.claims }),
  ]);
  story.write({ kind: 'createExport' }, () => story.exportRows(story.changes.at(-1) as Change));
  const { operation, first } = story.write({ kind: 'update' });
  story.read({ kind: 'getProject' }, [row('project', { revision: first, code: operation })]);
  story.read({ kind: 'listChanges' }, [row('feed', { revision: first, version: 1 })]);
  story.read({ kind: 'getUsage' }, [row('usage', { version: 6, code: 1, revision: 1 })]);
  story.read({ kind: 'getHead' }, [story.version(1, 2, 6, 4, 'head')]);
  return story;
};

/** Replaces the change of a revision. */
export const altered = (story: Told, revision: number, fields: Partial<Change>): Change[] =>
  story.changes.with(revision - 1, { ...(story.changes[revision - 1] as Change), ...fields });

const without = (story: Told, revision: number): Change[] => story.changes.toSpliced(revision - 1, 1);

/** Begins two writes one after the other, and applies them the other way round. */
export const twoWrites = (story: Told, firstEnds: 'before' | 'after'): void => {
  const ask = () => story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
  const [first, second] = [ask(), ask()];
  const call = story.begin(first);
  if (firstEnds === 'before') story.end(call, 'answered');
  const other = story.begin(second);
  story.apply(second);
  story.apply(first);
  story.end(other, 'answered');
  if (firstEnds === 'after') story.end(call, 'answered');
};

/** What is done to a history, and what has to be told of it. */
export type Tampering = readonly [what: string, tamper: (story: Told) => void, promise: Promised, told: RegExp];

/** What somebody did to a history, the promise it breaks, and what is told. */
export const TAMPERED: readonly (readonly [
  what: string,
  tamper: (story: Told) => void,
  promise: Promised,
  told: RegExp,
])[] = [
  [
    'an acknowledged write is in no record',
    (story) => {
      const lost = story.append(3);
      story.changes = renumbered(without(story, lost.first));
    },
    'lost',
    /operation \d+ append was acknowledged and is in no record/,
  ],
  [
    'a write is recorded twice',
    (story) => {
      const { operation } = story.write({ kind: 'update' });
      story.write({ kind: 'update' });
      story.apply(operation);
    },
    'twice',
    /operation \d+ update: project .* revision 14, and revision 12 before it/,
  ],
  [
    'a write is recorded twice in a row',
    (story) => void story.apply(story.write({ kind: 'update' }).operation),
    'twice',
    /revision 13, and revision 12 before it/,
  ],
  [
    'a retry is applied again',
    (story) => {
      const { operation } = story.write({ kind: 'update' });
      const again = story.begin(operation);
      story.apply(operation, 2);
      story.end(again, 'answered');
    },
    'twice',
    /revision 13, and revision 12 before it/,
  ],
  [
    'a write that was refused is recorded',
    (story) => {
      const operation = story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
      const call = story.begin(operation);
      story.apply(operation);
      story.end(call, 'refused');
    },
    'refused',
    /operation \d+ update: .* revision 12 by attempt 1/,
  ],
  [
    'a revision is missing',
    (story) => {
      story.append(4);
      story.changes = rechained(without(story, 11));
    },
    'revisionGap',
    /revision 11 to 11 are missing/,
  ],
  [
    'a revision comes twice',
    (story) => {
      story.changes = rechained([...story.changes, story.changes.at(-1) as Change]);
    },
    'revisionGap',
    /revision 11 comes again/,
  ],
  [
    'an author is altered',
    (story) => {
      story.changes = altered(story, 5, { actorId: PLACE.users.owner });
    },
    'chain',
    /revision 5 VERSION_APPENDED .* altered/,
  ],
  [
    'a version is left out',
    (story) => {
      story.changes = rechained(altered(story, 7, { version: 3 }));
    },
    'versionGap',
    /revision 7 VERSION_APPENDED is version 3 where 1 comes next/,
  ],
  [
    'a change comes from nobody',
    (story) => void story.record(900, 1, { kind: ChangeKind.PROJECT_UPDATED }),
    'change',
    /revision 12 PROJECT_UPDATED has a correlation id that was never sent/,
  ],
  [
    'a change is by another user than asked for it',
    (story) => {
      story.changes = rechained(altered(story, 3, { actorId: PLACE.users.viewer }));
    },
    'change',
    /revision 3 VERSION_APPENDED is not by the editor who asked for append/,
  ],
  [
    'a change is of another kind than was asked for',
    (story) => {
      story.changes = rechained(altered(story, 11, { kind: ChangeKind.PROJECT_DELETED }));
    },
    'change',
    /revision 11 PROJECT_DELETED is none that operation \d+ update makes/,
  ],
  [
    'half a batch is recorded',
    (story) => {
      story.write({ kind: 'batchAppend', type: 3, count: 2 });
      story.changes = renumbered(without(story, 13));
    },
    'change',
    /batchAppend: .* revision 12: 1 of its 2 changes are there/,
  ],
  [
    'a change is of another project',
    (story) => {
      story.changes = rechained(altered(story, 4, { projectId: PLACE.users.owner }));
    },
    'foreign',
    /revision 4 is of 0{8}-/,
  ],
  [
    'a write is put before one that had been acknowledged when it began',
    (story) => twoWrites(story, 'before'),
    'order',
    /update made revision 12, and revision 13 was there before it began: operation \d+ update made revision 13/,
  ],
  [
    'one request id is answered in two ways',
    (story) => {
      const { operation } = story.append(0);
      story.end(story.begin(operation), 'answered', [], 8);
    },
    'replay',
    /operation \d+ append was answered 2 ways/,
  ],
  [
    'two hold a lease of one run',
    (story) => void story.write({ kind: 'startRun', target: codeOf(5, 0) }),
    'lease',
    /revision 12 EXECUTION_STARTED follows status 2/,
  ],
  [
    'a claim answers a run that somebody else was given',
    (story) => {
      const run = story.write({ kind: 'createRun', target: 1 });
      const taken = story.claims;
      story.claims = codeOf(run.operation, 0);
      story.write({ kind: 'claimRun', actor: 'system', project: 0xffff }, () => [
        row('run', { version: 2, code: taken }),
      ]);
    },
    'lease',
    /claimRun: run 40 of its answer is none that revisions 13 to 13 made/,
  ],
  [
    'a watcher saw another change than is recorded',
    (story) => void story.watched.push({ place: PLACE, revision: 5, chain: 1 }),
    'eventOther',
    /was sent another revision 5 than is recorded/,
  ],
];
