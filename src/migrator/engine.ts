import type { Client } from 'pg';
import Postgrator from 'postgrator';
import { runInBatches } from './batches.ts';
import { runConcurrently } from './concurrently.ts';
import type { RunKind } from './directives.ts';
import { MigrationFailed } from './errors.ts';
import { label, type Migration, type Script } from './files.ts';
import { HISTORY } from './history.ts';
import { type Log, settle } from './session.ts';
import type { Step } from './step.ts';
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
  /** Told of each step when it is done. */
  readonly onStep?: ((step: StepDone) => void) | undefined;
}

interface Runner {
  run(step: Step): Promise<void>;
  /** What is left of a step that failed. */
  readonly rest: string;
}

const RUNNERS: Readonly<Record<RunKind, Runner>> = {
  transaction: { run: runWhole, rest: 'was rolled back' },
  concurrently: { run: runConcurrently, rest: 'left nothing' },
  batches: { run: runInBatches, rest: 'keeps the batches it has done; the next run goes on behind them' },
};

/** Postgrator, which decides what to run in which order, over the files as they were read and with runners of our own. */
export class Engine extends Postgrator {
  readonly #client: Client;
  readonly #files: readonly Migration[];
  readonly #options: EngineOptions;
  /** Of the library, whose types leave it out. */
  declare migrations: Postgrator.Migration[];
  /** What was done, in order, also before a failure. */
  readonly steps: StepDone[] = [];

  constructor(client: Client, files: readonly Migration[], options: EngineOptions) {
    super({
      driver: 'pg',
      database: client.database as string,
      schemaTable: HISTORY,
      execQuery: (query) => client.query(query),
    });
    this.#client = client;
    this.#files = files;
    this.#options = options;
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
    const log = this.#options.log && {
      info: (message: string) => this.#options.log?.info(`${label(migration)}: ${message}`),
    };
    const started = performance.now();
    try {
      await settle(this.#client);
      await runner.run({ client: this.#client, migration, action, script, log });
    } catch (error) {
      const what = action === 'do' ? 'migration' : 'the undo of migration';
      const message = `${what} ${label(migration)} failed and ${runner.rest}: ${explain(error, script)}`;
      throw new MigrationFailed(message, { cause: error });
    }
    const done = { version, name, action, durationMs: performance.now() - started };
    this.steps.push(done);
    this.#options.onStep?.(done);
  }
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
  const advice = code === '55P03' ? '; a table it needs stayed in use: run it again when what holds it has ended' : '';
  return `${error.message}${code ? ` (SQLSTATE ${code}${line})` : ''}${advice}`;
}
