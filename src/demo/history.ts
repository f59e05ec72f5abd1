import { randomUUID } from 'node:crypto';
import { type DiffHunk, DiffLineKind } from '../gen/jeex/persistence/v1/document_service_pb.js';
import type { Cast } from './opening.ts';
import { sample, sha256 } from './samples.ts';

/** Chapter 3: what two writers at once, a lost reply and a change of mind do to a document. */
export const changeMinds = async (cast: Cast): Promise<void> => {
  cast.story.chapter('3. Conflict, retry, restore, difference, search');
  await conflict(cast);
  await retry(cast);
  await restore(cast);
  await difference(cast);
  await search(cast);
};

const conflict = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const append = { projectId, documentType: 'plan', content: '# Another plan\n', expectedVersion: 1 };
  const refusal = await story.refused(
    'an agent that has seen plan 1 cannot write over plan 2: VERSION_CONFLICT',
    'VERSION_CONFLICT',
    owner.documents.appendVersion(append),
  );
  story.same(
    'the refusal tells the version to read, and that nothing was applied',
    [refusal.metadata.current_version, refusal.metadata.outcome],
    ['2', 'not_applied'],
  );
};

const retry = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const request = {
    projectId,
    documentType: 'plan',
    content: `${sample('plan', 2)}\n## Next\n\nTrust.\n`,
    reason: 'What comes next',
    requestId: randomUUID(),
  };
  const first = await owner.documents.appendVersion(request);
  const again = await owner.documents.appendVersion(request);
  story.same(`plan 3, sent twice as request ${request.requestId}, has the same answer twice`, again, first);
  const { versions } = await owner.documents.listVersions({ projectId, documentType: 'plan' });
  story.same(
    'and was written once',
    versions.map(({ version }) => version),
    [3, 2, 1],
  );
  await story.refused(
    'the same id with another request: REQUEST_ID_REUSED',
    'REQUEST_ID_REUSED',
    owner.documents.appendVersion({ ...request, content: 'something else' }),
  );
};

const restore = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const { version } = await owner.documents.restoreVersion({
    projectId,
    documentType: 'idea',
    version: 1,
    reason: 'The first words were better',
    expectedVersion: 2,
  });
  const { version: head } = await owner.documents.getVersion({ projectId, documentType: 'idea' });
  story.same(
    'going back appends: idea 3 has the words of idea 1, byte for byte',
    [version?.version, version?.restoredFromVersion, head?.version, head?.content],
    [3, 1, 3, sample('idea', 1)],
  );
  const { version: untouched } = await owner.documents.getVersion({ projectId, documentType: 'idea', version: 2 });
  story.same('idea 2 is still there as it was', untouched?.contentSha256, sha256(sample('idea', 2)));
};

const difference = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const { hunks } = await owner.documents.diffVersions({
    projectId,
    documentType: 'architecture',
    fromVersion: 1,
    toVersion: 2,
  });
  const [added, removed] = [DiffLineKind.ADDED, DiffLineKind.REMOVED].map(
    (kind) => hunks.flatMap(({ lines }) => lines).filter((line) => line.kind === kind).length,
  );
  story.same(
    `architecture 1 to 2: ${hunks.length} hunks, ${added} lines added, ${removed} removed; applied to 1 they give 2`,
    apply(sample('architecture', 1), hunks),
    sample('architecture', 2),
  );
};

/** Applies the hunks of a unified diff, as `patch` would. */
const apply = (from: string, hunks: readonly DiffHunk[]): string => {
  const source = from.split(/(?<=\n)/);
  const result: string[] = [];
  let position = 0;
  for (const hunk of hunks) {
    // As in a unified diff, a hunk that takes no line names the line it stands after.
    const start = hunk.fromLines === 0 ? hunk.fromStart : hunk.fromStart - 1;
    result.push(...source.slice(position, start));
    result.push(...hunk.lines.filter(({ kind }) => kind !== DiffLineKind.REMOVED).map(({ text }) => text));
    position = start + hunk.fromLines;
  }
  return [...result, ...source.slice(position)].join('');
};

const search = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const { matches } = await owner.documents.searchDocuments({ projectId, query: 'lateral fence' });
  const [best] = matches;
  story.same(
    `a search for "lateral fence" finds ${best?.version?.documentType} ${best?.version?.version}, and nothing else`,
    matches.map(({ version }) => version?.documentType),
    ['architecture'],
  );
  const excerpt = (best?.headline ?? '').replaceAll(/\s+/g, ' ').trim();
  story.say(`  “${excerpt.length > 100 ? `${excerpt.slice(0, 100)}…` : excerpt}”`);
  const { matches: stemmed } = await owner.documents.searchDocuments({ projectId, query: 'sealing replies' });
  story.same(
    'and "sealing replies" finds the text that says "reply" and "sealed", for the project is in English',
    stemmed.map(({ version }) => version?.documentType),
    ['architecture'],
  );
};
