import { keySource } from '../auth/key-source.ts';
import { openKeys } from '../auth/keys.ts';
import { createLog } from '../log.ts';
import { type Check, failed, Skip, warning } from './check.ts';

/** The keys that verify tokens: whether they can be read now. */
export const tokens: Check = {
  group: 'configuration',
  name: 'token keys',
  run: async ({ config }) => {
    if (config.auth === null) throw new Skip('AUTH_JWKS is unset: every caller holds every scope');
    try {
      const source = keySource(config.auth.jwks);
      const keys = await openKeys(source, createLog('silent'));
      keys.stop();
      const clear = source.name.startsWith('http:')
        ? [warning('they come over plain http', 'name an https URL, unless it is for development')]
        : [];
      return { seen: `${keys.current.size} of ${source.name}`, faults: clear };
    } catch (error) {
      const mend = 'make it readable from here; without keys the service does not start';
      return { seen: 'they cannot be read', faults: [failed((error as Error).message, mend)] };
    }
  },
};
