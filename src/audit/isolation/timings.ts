import { randomUUID } from 'node:crypto';
import type { DescMethod } from '@bufbuild/protobuf';
import { DocumentService } from '../../gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import type { Check } from './check.ts';
import { makeRequest } from './requests.ts';
import { keyOf, type Service } from './service.ts';

/** How many calls of each kind, alternating, one round measures. */
const CALLS = 200;
const WARM_UP = 20;
/** How far the medians may be apart. */
const TOLERANCE = 0.1;

const median = (values: readonly number[]): number => {
  const ordered = [...values].sort((x, y) => x - y);
  return ordered[Math.floor(ordered.length / 2)] ?? Number.NaN;
};

/** One round. @returns the median time for a foreign project, as a share of that for one that does not exist */
const measure = async ({ door, pair }: Service, method: DescMethod): Promise<number> => {
  const { a, b } = await pair();
  const time = async (project: string): Promise<number> => {
    const { message } = makeRequest(method, { ...b.facts, project });
    const began = performance.now();
    const { outcome } = await door.call(method, message, { actor: a.owner });
    if (outcome !== 'PROJECT_NOT_FOUND') throw new Error(`${keyOf(method)} answers ${outcome}`);
    return performance.now() - began;
  };
  const foreign: number[] = [];
  const absent: number[] = [];
  const kinds = [
    { times: foreign, project: () => b.facts.project },
    { times: absent, project: () => randomUUID() },
  ];
  for (let call = -WARM_UP; call < CALLS; call++) {
    // Which one comes first changes, since the second of two may find things warm.
    for (const { times, project } of call % 2 === 0 ? kinds : kinds.toReversed()) {
      const taken = await time(project());
      if (call >= 0) times.push(taken);
    }
  }
  return median(foreign) / median(absent);
};

const isApart = (ratio: number): boolean => !(Math.abs(ratio - 1) <= TOLERANCE);

/**
 * How long a refusal takes says nothing either. The middle one of three rounds counts, since another program can spoil one; two
 * within the tolerance make the third one needless.
 */
export const timingChecks = (service: Service): readonly Check[] =>
  [ProjectService.method.getProject, DocumentService.method.appendVersion].map((method) => ({
    group: 'timings' as const,
    name: `${keyOf(method)} refuses a foreign project as fast as one that does not exist`,
    run: async () => {
      const ratios = [await measure(service, method), await measure(service, method)];
      if (ratios.some(isApart)) ratios.push(await measure(service, method));
      return {
        seen: `ratio of the medians of ${CALLS} calls, by round: ${ratios.map((ratio) => ratio.toFixed(3)).join(', ')}`,
        faults: isApart(median(ratios)) ? ['the medians are more than 10 % apart'] : [],
      };
    },
  }));
