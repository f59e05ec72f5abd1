import { type Check, failed } from './check.ts';

/** Every rule that a service's start would refuse. */
export const environment: Check = {
  group: 'configuration',
  name: 'environment',
  run: async ({ problems }) => ({
    seen: problems.length === 0 ? 'a service could start with it' : 'a service would not start with it',
    faults: problems.map((problem) => failed(problem, 'set it so; .env.example and the README tell of each variable')),
  }),
};
