import type { AccessRecord } from './access-log.ts';
import { aggregateLine, type Common } from './line.ts';

/** How many kinds of reads are told apart within a second; one more ends the count early. */
const MAX_KINDS = 10_000;

/** Counts reads by the second. */
export interface Tally {
  add(record: AccessRecord): void;
  /** Ends the current count. */
  flush(): void;
}

interface Count {
  readonly common: Common;
  calls: number;
  maxDurationMs: number;
}

/** @param emit takes the line that stands for so many calls, when their second is over */
export const createTally = (emit: (line: string, calls: number) => void): Tally => {
  const counts = new Map<string, Count>();
  let second = 0;
  let timer: NodeJS.Timeout | undefined;

  const flush = () => {
    clearTimeout(timer);
    for (const { common, calls, maxDurationMs } of counts.values()) {
      emit(aggregateLine(second, common, calls, maxDurationMs), calls);
    }
    counts.clear();
  };

  const begin = (now: number) => {
    second = Math.floor(now / 1000);
    timer = setTimeout(flush, (second + 1) * 1000 - now);
  };

  return {
    add: (record) => {
      const now = Date.now();
      if (counts.size > 0 && Math.floor(now / 1000) !== second) flush();
      const key = keyOf(record);
      const count = counts.get(key);
      if (count) {
        count.calls += 1;
        count.maxDurationMs = Math.max(count.maxDurationMs, record.durationMs);
        return;
      }
      if (counts.size === MAX_KINDS) flush();
      if (counts.size === 0) begin(now);
      counts.set(key, { common: record, calls: 1, maxDurationMs: record.durationMs });
    },
    flush,
  };
};

// None of these holds a line's end, so that no two records share a key that differ.
const keyOf = ({ rpc, caller, actor, projects, result }: Common): string =>
  [rpc, caller, actor, result, ...projects].join('\n');
