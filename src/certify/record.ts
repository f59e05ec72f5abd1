import { type Change, ChangeService } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { Door } from './door.ts';
import type { Place } from './history.ts';
import type { RetryPolicy } from './options.ts';
import { patiently } from './patience.ts';
import type { Random } from './random.ts';

const PAGE = 1000;
const CALL_MS = 30_000;

/** A project's whole record of changes, page by page. @throws Failed when the service stays away */
export async function* readRecord(
  door: Door,
  { id: projectId }: Place,
  retry: RetryPolicy,
  random: Random,
): AsyncGenerator<readonly Change[]> {
  let pageToken = '';
  do {
    const request = { projectId, pageSize: PAGE, pageToken, afterRevision: 0n };
    const { message } = await patiently(retry, random, () =>
      door.call(ChangeService.method.listChanges, request, { timeoutMs: CALL_MS }),
    );
    yield message.changes;
    pageToken = message.nextPageToken;
  } while (pageToken !== '');
}
