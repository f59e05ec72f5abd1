import { create, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import { toVersion } from '../documents/version.ts';
import { toExecution } from '../executions/wire.ts';
import { toExport } from '../exports/wire.ts';
import {
  ChangeKind,
  ChangeSchema,
  type ChangeService,
  HeartbeatSchema,
  TimelineItemSchema,
  type WatchProjectResponse,
  WatchProjectResponseSchema,
  WatchProjectsResponseSchema,
} from '../gen/jeex/persistence/v1/change_service_pb.js';
import { invalidField } from '../refusal.ts';
import type { Call } from '../rpc/call.ts';
import type { Context } from '../rpc/context.ts';
import { enumNames, timestamp } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { type Cursor, repeatedProject } from './changes.ts';
import { follow, type Shown } from './feed.ts';
import { createPlaces } from './places.ts';
import { createPoller } from './poller.ts';
import * as statements from './sql.ts';
import { compacted } from './watch.ts';

const kind = enumNames(ChangeKind);

const toChange = (row: statements.ChangeRow) => ({
  projectId: row.project_id,
  revision: row.revision,
  kind: kind.value(row.kind),
  resourceId: row.resource_id ?? '',
  documentType: row.document_type ?? '',
  version: row.version ?? 0,
  actorId: row.actor_id ?? '',
  caller: row.caller,
  correlationId: row.correlation_id,
  createTime: timestamp(row.create_time),
  chain: row.chain.toString('hex'),
});

/** The messages of watches: those of one poll that are told the same change share one. */
const shownAs = <D extends typeof WatchProjectResponseSchema | typeof WatchProjectsResponseSchema>(
  schema: D,
): Shown<MessageShape<D>> => {
  const known = new WeakMap<statements.ChangeRow, MessageShape<D>>();
  const make = (event: WatchProjectResponse['event']) => create<D>(schema, { event } as MessageInitShape<D>);
  return {
    change: (row: statements.ChangeRow) => {
      const message = known.get(row) ?? make({ case: 'change', value: create(ChangeSchema, toChange(row)) });
      known.set(row, message);
      return message;
    },
    heartbeat: (projectId: string, revision: bigint) =>
      make({ case: 'heartbeat', value: create(HeartbeatSchema, { projectId, revision }) }),
  };
};
const shownProject = shownAs(WatchProjectResponseSchema);
const shownProjects = shownAs(WatchProjectsResponseSchema);

const itemOf = (row: statements.TimelineRow): MessageInitShape<typeof TimelineItemSchema>['item'] => {
  if (row.execution) return { case: 'execution', value: toExecution(row.execution) };
  if (row.version) return { case: 'version', value: toVersion(row.version) };
  if (row.export) return { case: 'export', value: toExport(row.export) };
  return row.change ? { case: 'change', value: toChange(row.change) } : { case: undefined };
};

export const changeHandlers = ({ db, pager, signals }: Context): ServiceHandlers<typeof ChangeService> => {
  const poller = createPoller(db);
  signals.follow(poller);
  const places = createPlaces();

  const watch = (cursors: readonly Cursor[], cursorField: string | null, { caller, actor, signal }: Call) => ({
    actor,
    cursors,
    cursorField,
    signal,
    onEnd: places.take({ caller, actor }, cursors.length),
  });

  return {
    watchProject: ({ projectId, afterRevision }, call) =>
      follow(poller, { ...watch([{ projectId, afterRevision }], null, call), shown: shownProject }),

    watchProjects: ({ cursors }, call) => {
      const repeated = repeatedProject(cursors);
      if (repeated >= 0) throw invalidField(`cursors[${repeated}].project_id`, 'must not be named twice');
      return follow(poller, { ...watch(cursors, 'cursors', call), shown: shownProjects });
    },

    listChanges: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const token = pager.read(call, request, request.pageToken);
      const after = token === null ? (request.afterRevision ?? 0n) : BigInt(String(token[0]));
      const params = { project: request.projectId, actor: call.actor, after, most: limit + 1 };
      const found = await db.run(statements.listChanges, params, call);
      const earliest = found[0]?.earliest_revision ?? 0n;
      if (after < earliest) throw compacted(earliest);
      const page = cutPage(
        found.filter((row) => row.revision !== null),
        limit,
        (row) => encodedSize(ChangeSchema, toChange(row)),
        (row) => [String(row.revision)],
      );
      return { changes: page.rows.map(toChange), nextPageToken: pager.write(call, request, page.next) };
    },

    getTimeline: async (request, call) => {
      const limit = pageSize(request.pageSize);
      const token = pager.read(call, request, request.pageToken);
      const params = {
        project: request.projectId,
        actor: call.actor,
        correlation: request.correlationId,
        after: token === null ? 0n : BigInt(String(token[0])),
        most: limit + 1,
      };
      const page = cutPage(
        await db.run(statements.getTimeline, params, call),
        limit,
        (row) => (row.fits ? encodedSize(TimelineItemSchema, { item: itemOf(row) }) : Number.POSITIVE_INFINITY),
        (row) => [String(row.revision)],
      );
      const items = page.rows.map((row) => ({ item: itemOf(row) }));
      return { items, nextPageToken: pager.write(call, request, page.next) };
    },
  };
};
