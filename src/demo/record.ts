import { ChainWalk, type Link } from '../changes/chain.ts';
import { type Change, ChangeKind, type TimelineItem } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Cast } from './opening.ts';

/** Chapter 6: what the correlation caused, and the proof that nothing of the record is missing or altered. */
export const readTheRecord = async (cast: Cast): Promise<void> => {
  cast.story.chapter('6. The record');
  await timeline(cast);
  await feed(cast);
};

const timeline = async ({ story, owner, projectId, correlationId }: Cast): Promise<void> => {
  const items: TimelineItem['item'][] = [];
  let pageToken = '';
  do {
    const page = await owner.changes.getTimeline({ projectId, correlationId, pageSize: 20, pageToken });
    items.push(...page.items.map(({ item }) => item));
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  const count = (kind: TimelineItem['item']['case']) => items.filter((item) => item.case === kind).length;
  story.same(
    `the timeline of ${correlationId}: 8 executions, 13 versions, 1 export, and the changes they made`,
    [count('execution'), count('version'), count('export'), count('change') > 0],
    [8, 13, 1, true],
  );
};

const feed = async ({ story, owner, projectId }: Cast): Promise<void> => {
  const changes: Change[] = [];
  let pageToken = '';
  do {
    const page = await owner.changes.listChanges({ projectId, pageSize: 20, pageToken });
    changes.push(...page.changes);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  const { project } = await owner.projects.getProject({ id: projectId });
  story.same(
    `the change feed has revisions 1 to ${project?.revision}, without a gap`,
    changes.map(({ revision }) => revision),
    Array.from({ length: Number(project?.revision ?? 0) }, (_, index) => BigInt(index + 1)),
  );
  story.same('computed again, every link of its chain is right', firstBrokenLink(changes), null);
  const forged = changes.with(4, { ...(changes[4] as Change), actorId: '' });
  story.same('with one author taken out, the chain breaks at that change', firstBrokenLink(forged), 5n);
  const shortened = changes.toSpliced(6, 1);
  story.same('with one change left out, it is missing', firstBrokenLink(shortened), 7n);

  const watched: Change[] = [];
  for await (const { event } of owner.changes.watchProject({ projectId, afterRevision: 0n })) {
    if (event.case === 'change') watched.push(event.value);
    if (watched.length === changes.length) break;
  }
  story.same('a watcher who begins at 0 is sent the same changes', watched, changes);
};

/** A change as its chain sees it. */
export const linkOf = (change: Change): Link => ({
  project_id: change.projectId,
  revision: change.revision,
  kind: ChangeKind[change.kind],
  resource_id: change.resourceId || null,
  document_type: change.documentType || null,
  version: change.version || null,
  actor_id: change.actorId || null,
  caller: change.caller,
  correlation_id: change.correlationId,
  create_time: (change.createTime?.seconds ?? 0n) * 1_000_000n + BigInt((change.createTime?.nanos ?? 0) / 1000),
  chain: Buffer.from(change.chain, 'hex'),
});

/** The revision of the first of a project's changes, from its first one on, where the chain does not hold; null for none. */
export const firstBrokenLink = (changes: readonly Change[]): bigint | null => {
  const links = changes.map(linkOf);
  const last = links.at(-1);
  const walk = new ChainWalk();
  if (last !== undefined) walk.read({ head: last.revision, head_chain: last.chain, earliest_revision: 0n }, links);
  return walk.end().faults[0]?.revision ?? null;
};
