import type { DiagLogger } from '@opentelemetry/api';
import type { Logger } from '../log.ts';

/** How many lines a minute the SDK may write: a collector that is down makes it complain of every batch. */
const LINES = 5;
const MINUTE_MS = 60_000;
/** What it says before there is a log is kept, as far as it is no more than this. */
const KEPT_LINES = 20;
const MAX_LENGTH = 300;

type Level = 'error' | 'warn' | 'debug';
interface Line {
  readonly level: Level;
  readonly sdk: string;
}

/** What the SDK says of itself, for the service's log. */
export interface Diagnostics {
  readonly logger: DiagLogger;
  /** Where it goes from now on; what was said before goes there at once. */
  reportTo(log: Logger): void;
}

/** @param now in milliseconds */
export const createDiagnostics = (now: () => number = Date.now): Diagnostics => {
  const kept: Line[] = [];
  let log: Logger | null = null;
  let minute = Number.NEGATIVE_INFINITY;
  let lines = 0;
  let left = 0;

  const write = ({ level, sdk }: Line, to: Logger) => {
    if (!to.isLevelEnabled(level)) return;
    if (now() - minute >= MINUTE_MS) {
      minute = now();
      lines = 0;
    }
    lines += 1;
    if (lines > LINES) {
      left += 1;
      return;
    }
    to[level]({ sdk, ...(left > 0 && { leftOut: left }) }, 'telemetry');
    left = 0;
  };
  const say =
    (level: Level) =>
    (...said: unknown[]) => {
      const line = { level, sdk: textOf(said) };
      if (log) write(line, log);
      else if (kept.length < KEPT_LINES) kept.push(line);
    };
  const nothing = () => {};
  return {
    logger: { error: say('error'), warn: say('warn'), info: say('debug'), debug: nothing, verbose: nothing },
    reportTo: (to) => {
      log = to;
      for (const line of kept.splice(0)) write(line, to);
    },
  };
};

const textOf = (said: readonly unknown[]): string =>
  said
    .map((part) => (part instanceof Error ? part.message : typeof part === 'string' ? messageIn(part) : ''))
    .filter((part) => part !== '')
    .join(' ')
    .slice(0, MAX_LENGTH);

/** An error comes as JSON with its stack, of which the message says enough. */
const messageIn = (text: string): string => /^\{.*"message":"((?:[^"\\]|\\.)*)"/s.exec(text)?.[1] ?? text;
