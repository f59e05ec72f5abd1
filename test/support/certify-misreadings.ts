import type { Seen } from '../../src/certify/ledger.ts';
import { codeOf } from '../../src/certify/marks.ts';
import { type Change, ChangeKind } from '../../src/gen/jeex/persistence/v1/change_service_pb.js';
import { rechained, row, type Told } from './certified.ts';
import { altered, type Tampering } from './certify-tamperings.ts';

/** What its export shows, with so many downloads. */
const exportRows = (story: Told, downloads: number): readonly Seen[] => {
  const made = story.changes.find(({ kind }) => kind === ChangeKind.EXPORT_CREATED) as Change;
  const [exported, ...manifest] = story.exportRows(made);
  return [{ ...(exported as Seen), writer: downloads }, ...manifest];
};

export const feedAt = (story: Told, revision: number) => {
  const code = Number.parseInt(story.changes[revision - 1]?.chain.slice(-8) ?? '', 16);
  return row('feed', { revision, version: 1, code });
};

/** What reads showed that they should not have, and what is told of it. */
export const MISREAD: readonly Tampering[] = [
  [
    'a read shows the state before an acknowledged write',
    (story) => {
      story.append(0);
      story.read({ kind: 'getHead' }, [story.version(0, 3, 5, 4, 'head')]);
    },
    'stale',
    /getHead saw revisions 5 to 11, and revision 12 was there before it began: operation \d+ append made revision 12/,
  ],
  [
    'a document is not there after it was written',
    (story) => void story.read({ kind: 'getHead' }, [row('head', { type: 2 })]),
    'stale',
    /getHead saw revisions 0 to 6,/,
  ],
  [
    'a conflict tells an old head',
    (story) => {
      const operation = story.ledger.ask({ kind: 'append', project: 0, actor: 'editor' });
      story.end(story.begin(operation), 'refused', [row('head', { version: 2 })]);
    },
    'stale',
    /append saw revisions 3 to 4,/,
  ],
  [
    'a conflict tells a head that nobody wrote',
    (story) => {
      const operation = story.ledger.ask({ kind: 'append', project: 0, actor: 'editor' });
      story.end(story.begin(operation), 'refused', [row('head', { version: 9 })]);
    },
    'read',
    /append: idea version 9 is in no record/,
  ],
  [
    'a read does not show what one of two equal calls was answered before it',
    (story) => {
      const operation = story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
      const [slow, fast] = [story.begin(operation), story.begin(operation)];
      story.apply(operation);
      story.end(fast, 'answered');
      story.read({ kind: 'listChanges' }, [feedAt(story, 11)]);
      story.end(slow, 'answered');
    },
    'stale',
    /listChanges saw revision 11, and revision 12 was there before it began/,
  ],
  [
    'a read shows less than the read before it, while nobody was told of the write',
    (story) => {
      const operation = story.ledger.ask({ kind: 'update', project: 0, actor: 'editor' });
      const call = story.begin(operation);
      const [before, after] = [story.head, story.apply(operation)];
      story.read({ kind: 'listChanges' }, [feedAt(story, after)]);
      story.read({ kind: 'listChanges' }, [feedAt(story, before)]);
      story.end(call, 'answered');
    },
    'stale',
    /listChanges saw revision 11, and revision 12 was there before it began: operation \d+ listChanges saw revision 12/,
  ],
  [
    'a read shows a write that had not begun',
    (story) => {
      const call = story.begin(story.ledger.ask({ kind: 'listChanges', project: 0, actor: 'viewer' }));
      story.end(call, 'answered');
      const { first } = story.write({ kind: 'update' });
      story.ledger.see(call, [feedAt(story, first)]);
    },
    'stale',
    /update made revision 12, and revision 12 was there before it began: operation \d+ listChanges saw revision 12/,
  ],
  [
    'a read shows the version of another document',
    (story) => void story.read({ kind: 'getHead' }, [story.version(0, 3, 7, 4, 'head')]),
    'read',
    /idea version 3 of revision 7 is recorded at revision 5/,
  ],
  [
    'a read shows another author',
    (story) => void story.read({ kind: 'getVersion' }, [story.version(0, 1, 2, 3)]),
    'read',
    /idea version 1 is not by operation 3/,
  ],
  [
    'a read shows the content of another version',
    (story) => void story.read({ kind: 'getVersion' }, [{ ...story.version(0, 1, 2, 1), code: codeOf(2, 0) }]),
    'read',
    /idea version 1 has the content of 16, not 8/,
  ],
  [
    'the head at a revision is a later one',
    (story) => void story.read({ kind: 'getAtRevision', target: 4 }, [story.version(0, 3, 5, 4, 'headAt')]),
    'read',
    /idea at revision 4 is version 2, not 3/,
  ],
  [
    'a list of documents mixes two moments',
    (story) =>
      void story.read({ kind: 'listDocuments' }, [
        story.version(0, 2, 3, 2, 'head'),
        story.version(2, 1, 7, 4, 'head'),
      ]),
    'read',
    /no revision shows all it answered/,
  ],
  [
    'a project shows a name it had not yet',
    (story) => void story.read({ kind: 'getProject' }, [row('project', { revision: 10, code: 8 })]),
    'read',
    /at revision 10 the project was named by operation 0, not 8/,
  ],
  [
    'a usage counts what was never made',
    (story) => void story.read({ kind: 'getUsage' }, [row('usage', { version: 7, code: 1, revision: 1 })]),
    'read',
    /7 versions, 1 runs and 1 exports are more than were ever made/,
  ],
  [
    'a run is answered instead of another',
    (story) => void story.read({ kind: 'getRun', target: 5 }, [row('run', { version: 2, code: codeOf(5, 0) })]),
    'read',
    /run 40 was answered, 5 was asked for/,
  ],
  [
    'a run has a status it never had',
    (story) =>
      void story.read({ kind: 'getRun', target: codeOf(5, 0) }, [row('run', { version: 3, code: codeOf(5, 0) })]),
    'read',
    /run 40 never had status 3/,
  ],
  [
    'a run was completed by another operation than wrote its output',
    (story) => {
      const run = codeOf(5, 0);
      story.write({ kind: 'completeRun', count: 0, target: run });
      story.read({ kind: 'getRun', target: run }, [row('run', { version: 3, code: run, writer: 2 })]);
    },
    'read',
    /run 40 was completed by operation \d+, not 2/,
  ],
  [
    'a run is started instead of another',
    (story) => {
      const [asked, other] = [
        story.write({ kind: 'createRun', target: 1 }),
        story.write({ kind: 'createRun', target: 1 }),
      ];
      story.write({ kind: 'startRun', target: codeOf(asked.operation, 0) });
      const { resourceId } = story.changes[other.first - 1] as Change;
      story.changes = rechained(altered(story, story.head, { resourceId }));
    },
    'change',
    /EXECUTION_STARTED is of another one than operation \d+ asked for/,
  ],
  [
    'an export is of another revision than it was made at',
    (story) =>
      void story.read({ kind: 'getExport', target: 56 }, [row('export', { version: 1, revision: 1, code: 56 })]),
    'read',
    /export 56 is of revision 9, not 1/,
  ],
  [
    'an export counts downloads that never were',
    (story) => void story.read({ kind: 'getExport', target: 56 }, [...exportRows(story, 1)]),
    'read',
    /export 56 has 0 downloads, not 1/,
  ],
  [
    'an export leaves out a download that was acknowledged',
    (story) => {
      story.write({ kind: 'recordDownload', target: 56 });
      story.read({ kind: 'getExport', target: 56 }, exportRows(story, 0));
    },
    'stale',
    /getExport saw revisions 10 to 11, and revision 12 was there before it began: operation \d+ recordDownload/,
  ],
  [
    'a listed change has another chain',
    (story) => void story.read({ kind: 'listChanges' }, [{ ...feedAt(story, 4), code: 1 }]),
    'read',
    /revision 4 was listed with another chain/,
  ],
  [
    'an export names another version than the head at its revision',
    (story) =>
      void story.read({ kind: 'streamExport' }, [row('manifest', { type: 0, version: 2, revision: 9, writer: 56 })]),
    'read',
    /a manifest of revision 9 has idea version 2, not 3/,
  ],
  [
    'an export leaves a document out',
    (story) => {
      story.read({ kind: 'getExport', target: codeOf(7, 0) }, exportRows(story, 0).slice(0, -1));
    },
    'read',
    /the manifest of export 56 names 2 of 3 documents/,
  ],
];
