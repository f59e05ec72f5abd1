import type { AccessLog } from '../../src/audit/access-log.ts';
import type { Caller } from '../../src/rpc/access.ts';

/** Puts nothing on record. */
export const NO_ACCESS_LOG: AccessLog = { admit: () => {}, record: () => {}, close: async () => {} };

/** A caller with some scopes, whose token narrows nothing and does not end. */
export const callerWith = (name: string, scopes: readonly string[] = []): Caller => ({
  name,
  scopes: new Set(scopes),
  actors: null,
  projects: null,
  expires: null,
});
