import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type DatabaseService,
  type SlowQuerySchema,
  SlowQuerySchema as slowQuerySchema,
} from '../gen/jeex/persistence/v1/database_service_pb.js';
import type { Place, ReadSlowQueries, SlowQuery } from '../monitor/slow-queries.ts';
import type { Context } from '../rpc/context.ts';
import { duration } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { cutPage, encodedSize, pageSize } from '../rpc/page.ts';
import { admit } from './sql.ts';

const toQuery = (query: SlowQuery): MessageInitShape<typeof SlowQuerySchema> => ({
  queryId: String(query.queryId),
  statement: query.text,
  name: query.name,
  calls: query.calls,
  rows: query.rows,
  totalTime: duration(query.total),
  meanTime: duration(query.mean),
  maxTime: duration(query.max),
  genericPlan: query.plan,
});

/**
 * Lists by total time, which grows while somebody pages: a statement that has run since may have come to stand before the page
 * that was read, and is then on none.
 */
export const slowQueryLister =
  ({ db, pager }: Context, read: ReadSlowQueries): ServiceHandlers<typeof DatabaseService>['listSlowQueries'] =>
  async (request, call) => {
    const after = pager.read(call, request, request.pageToken) as Place | null;
    await db.run(admit, { actor: call.actor }, call);
    const limit = pageSize(request.pageSize);
    const found = await read(after, limit + 1, call.signal);
    const page = cutPage(
      found,
      limit,
      (query) => encodedSize(slowQuerySchema, toQuery(query)),
      ({ total, queryId }) => [String(total), String(queryId)],
    );
    return { queries: page.rows.map(toQuery), nextPageToken: pager.write(call, request, page.next) };
  };
