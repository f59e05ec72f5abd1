import type { Client } from 'pg';
import Postgrator from 'postgrator';
import { runInBatches } from './batches.ts';
import { runConcurrently } from './concurrently.ts';
import type { RunKind } from './directives.ts';
import { CANCELLED, MigrationFailed, TransactionEnded } from './errors.ts';
import { label, type Migration, type Script } from './files.ts';
import { HISTORY } from './history.ts';
import { type Log, settle } from './session.ts';
import type { Step } from './step.ts';
import type { Watch } from './watch.ts';
import { runWhole } from './whole.ts';

/** A step that was taken. */
export interface StepDone {
  readonly version: number;
  readonly name: string;
  readonly action: 'do' | 'undo';
  readonly durationMs: number;
}

export interface EngineOptions {
  readonly log?: Log | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told of each step when it is done. */
  readonly onStep?: ((step: StepDone) => void) | undefined;
}

interface Runner {
  run(step: Step): Promise<void>;
  /** What is left of a step that failed. */
  readonly rest: string;
  /** The same when the server does not answer any more, or was told to stop. */
  readonly cutOff: string;
}

const RUNNERS: Readonly<Record<RunKind, Runner>> = {
  transaction: {
    run: runWhole,
    rest: 'was rolled back',
    cutOff: 'was rolled back, unless it had just been committed: `migrate status` tells',
  },
  concurrently: {
    run: runConcurrently,
    rest: 'left nothing',
    cutOff: 'may have left an unfinished index, which the next run mends',
  },
  batches: {
    run: runInBatches,
    rest: 'keeps the batches it has done; the next run goes on behind them',
    cutOff: 'keeps the batches it has done; the next run goes on behind them',
  },
};

/** Postgrator, which decides what to run in which order, over the files as they were read and with runners of our own. */
export class Engine extends Postgrator {
  readonly #client: Client;
  readonly #files: readonly Migration[];
  readonly #options: EngineOptions;
  readonly #watch: Watch;
  /** Of the library, whose types leave it out. */
  declare migrations: Postgrator.Migration[];
  /** What was done, in order, also before a failure. */
  readonly steps: StepDone[] = [];

  constructor(client: Client, watch: Watch, files: readonly Migration[], options: EngineOptions) {
    super({
      driver: 'pg',
      schemaTable: HISTORY,
      // The preflight has compared them, under the same lock.
      validateChecksums: false,
      execQuery: (query) => client.query(query),
    });
    this.#client = client;
    this.#files = files;
    this.#options = options;
    this.#watch = watch;
  }

  override async getMigrations(): Promise<Postgrator.Migration[]> {
    this.migrations = this.#files.flatMap((file) => [
      asPostgrator(file, 'do', file),
      ...(file.undo === null ? [] : [asPostgrator(file, 'undo', file.undo)]),
    ]);
    return this.migrations;
  }

  override async runMigrations(migrations: Postgrator.Migration[] = []): Promise<Postgrator.Migration[]> {
    for (const { version, action } of migrations) {
      const migration = this.#files.find((file) => file.version === version) as Migration;
      await this.#take(migration, action === 'do' ? 'do' : 'undo');
    }
    return migrations;
  }

  async #take(migration: Migration, action: 'do' | 'undo'): Promise<void> {
    const script = action === 'do' ? migration : (migration.undo as Script);
    const runner = RUNNERS[script.directives.run];
    const { version, name } = migration;
    const { log: whole, signal, onStep } = this.#options;
    const log = whole && { info: (message: string) => whole.info(`${label(migration)}: ${message}`) };
    const started = performance.now();
    try {
      signal?.throwIfAborted();
      await settle(this.#client);
      const watch = this.#watch;
      await runner.run({ client: this.#client, migration, action, script, log, signal, watch });
    } catch (error) {
      const what = `${action === 'do' ? 'migration' : 'the undo of migration'} ${label(migration)}`;
      const left = restOf(error, runner);
      if (signal?.aborted) whole?.info(`${what} ${left}`);
      throw new MigrationFailed(`${what} failed and ${left}: ${explain(error, script)}`, { cause: error });
    }
    const done = { version, name, action, durationMs: performance.now() - started };
    this.steps.push(done);
    onStep?.(done);
  }
}

/** What the server or the system says when a connection has ended: there is no knowing what came of the last statement. */
const LOST = /^(57P0\d|08\d{3}|E[A-Z]+)$/;

function restOf(error: unknown, { rest, cutOff }: Runner): string {
  if (error instanceof TransactionEnded)
    return 'was not rolled back: what stands before the end of its transaction stays';
  const { code = '', message = '' } = error as { code?: string; message?: string };
  return LOST.test(code) || code === CANCELLED || /^Connection terminated/.test(message) ? cutOff : rest;
}

const asPostgrator = (file: Migration, action: 'do' | 'undo', script: Script): Postgrator.Migration => ({
  version: file.version,
  action,
  filename: script.filename,
  name: file.name,
  md5: file.checksum,
  getSql: () => script.sql,
});

/** PostgreSQL counts characters; a person looks for a line. */
function explain(error: unknown, script: Script): string {
  if (!(error instanceof Error)) return String(error);
  const { position, code } = error as Error & { position?: string; code?: string };
  const line = position ? `, line ${script.sql.slice(0, Number(position)).split('\n').length}` : '';
  const advice = ADVICE[code ?? ''] ?? '';
  return `${withoutContent(error.message, code)}${code ? ` (SQLSTATE ${code}${line})` : ''}${advice}`;
}

const ADVICE: Readonly<Record<string, string>> = {
  '55P03': '; what it needs stayed in use: run it again when that has ended',
  '42P07': '; it was not made by this file: drop it, or give it another name, and run this again',
};

/** Errors of data (class 22) quote it, and what rows hold belongs into no log. */
const withoutContent = (message: string, code = ''): string =>
  code.startsWith('22') ? message.replace(/: ".*$/s, '') : message;
