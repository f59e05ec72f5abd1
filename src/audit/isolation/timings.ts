import { randomUUID } from 'node:crypto';
import type { DescMethod } from '@bufbuild/protobuf';
import { DocumentService } from '../../gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../gen/jeex/persistence/v1/project_service_pb.js';
import type { Check } from './check.ts';
import { makeRequest } from './requests.ts';
import { keyOf, type Service } from './service.ts';

/** How many calls of each kind, alternating, one attempt measures. */
const CALLS = 200;
const WARM_UP = 20;
/** How far the medians may be apart. */
const TOLERANCE = 0.1;
/** A machine that does other things too can spoil an attempt; a difference that is there shows in all of them. */
const ATTEMPTS = 3;

const median = (values: readonly number[]): number => {
  const ordered = [...values].sort((x, y) => x - y);
  return ordered[Math.floor(ordered.length / 2)] ?? Number.NaN;
};

interface Medians {
  /** In milliseconds. */
  readonly foreign: number;
  readonly absent: number;
}

const measure = async ({ door, pair }: Service, method: DescMethod): Promise<Medians> => {
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
  return { foreign: median(foreign), absent: median(absent) };
};

const apart = ({ foreign, absent }: Medians): number => Math.abs(foreign / absent - 1);

const told = ({ foreign, absent }: Medians): string =>
  `medians of ${CALLS}: foreign ${foreign.toFixed(3)} ms, absent ${absent.toFixed(3)} ms, ratio ${(foreign / absent).toFixed(3)}`;

/** How long a refusal takes says nothing either. */
export const timingChecks = (service: Service): readonly Check[] =>
  [ProjectService.method.getProject, DocumentService.method.appendVersion].map((method) => ({
    group: 'timings' as const,
    name: `${keyOf(method)} refuses a foreign project as fast as one that does not exist`,
    run: async () => {
      let best = await measure(service, method);
      for (let attempt = 1; attempt < ATTEMPTS && apart(best) > TOLERANCE; attempt++) {
        const next = await measure(service, method);
        if (apart(next) < apart(best)) best = next;
      }
      return { seen: told(best), faults: apart(best) > TOLERANCE ? ['the medians are more than 10 % apart'] : [] };
    },
  }));
