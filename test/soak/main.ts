// A soak: load, faults by a schedule, and the check of every call's ledger (npm run soak -- --help).
import { writeFileSync } from 'node:fs';
import { untilInterrupted } from '../../src/commands/interrupt.ts';
import { HELP, readOptions, WrongUse } from './options.ts';
import { faultsOf, toMarkdown } from './report.ts';
import { soak } from './run.ts';

const EXIT = { passed: 0, failed: 1, wrongUse: 2 } as const;

const say = (line: string): void => void process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

const run = async (): Promise<number> => {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    process.stdout.write(HELP);
    return EXIT.passed;
  }
  say(`seed ${options.seed}`);
  try {
    const report = await untilInterrupted((signal) => soak(options, { signal, say }));
    if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
    process.stdout.write(toMarkdown(report));
    return faultsOf(report).length === 0 ? EXIT.passed : EXIT.failed;
  } catch (error) {
    say(
      `the soak with --seed ${options.seed} did not come to its end: ${error instanceof Error ? error.stack : error}`,
    );
    return EXIT.failed;
  }
};

try {
  // What a fault was waiting for may still hold the process.
  process.exit(await run());
} catch (error) {
  if (!(error instanceof WrongUse)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exit(EXIT.wrongUse);
}
