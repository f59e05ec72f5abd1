import type { Command } from 'commander';
import type { MoveOptions } from '../commands/migrate.ts';
import type { MigrateGenerateOptions } from '../commands/migrate-generate.ts';
import type { MigrateLintOptions } from '../commands/migrate-lint.ts';
import type { VerifyOptions } from '../commands/migrate-look.ts';
import { parseVersion, parseWait } from './arguments.ts';

/** What brings the schema up or down, looks at it, or writes the next migration. */
export function addMigrate(program: Command): void {
  const migrate = program
    .command('migrate')
    .description('bring the schema up, take it down, look at it, or write the next migration')
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 failed and rolled back, 2 wrong use, 3 refused before anything was changed.',
    );
  moving(migrate.command('up'))
    .description('apply what is missing')
    .option('--to <version>', 'no further than this version', parseVersion)
    .action(async (options: MoveOptions) => {
      const { migrateUp } = await import('../commands/migrate.ts');
      await migrateUp(options);
    });
  moving(migrate.command('down'))
    .description('undo the migrations above a version; what they made is lost')
    .requiredOption('--to <version>', 'the version to go back to; 0 undoes all', parseVersion)
    .action(async (options: MoveOptions & { to: number }) => {
      const { migrateDown } = await import('../commands/migrate.ts');
      await migrateDown(options);
    });
  addMigrateLooks(migrate);
  addMigrateWrites(migrate);
}

/** The options of what changes a schema. */
const moving = (command: Command): Command =>
  command
    .option('--dry-run', 'print the SQL instead of running it')
    .option('--i-have-a-backup', 'run what loses data also without a backup of the last hour that the server knows of')
    .option('--wait <seconds>', 'how long to wait for another migrator', parseWait, 60)
    .option('--json', 'one line of JSON at the end, also of a failure, instead of a line for each migration');

function addMigrateLooks(migrate: Command): void {
  migrate
    .command('status')
    .description('show what is applied, what is missing, and what is wrong')
    .option('--json', 'as one line of JSON')
    .action(async (options: { json?: boolean }) => {
      const { migrateStatus } = await import('../commands/migrate-look.ts');
      await migrateStatus(options);
    });
  migrate
    .command('plan')
    .description('show what `up` would do, how, and what the files say of it')
    .option('--json', 'as one line of JSON')
    .action(async (options: { json?: boolean }) => {
      const { migratePlan } = await import('../commands/migrate-look.ts');
      await migratePlan(options);
    });
  migrate
    .command('verify')
    .description('insist that the database has every migration of this release, as it was written')
    .option('--drift', 'and that its schema is still what they made, naming each object that differs')
    .option('--json', 'as one line of JSON')
    .action(async (options: VerifyOptions) => {
      const { migrateVerify } = await import('../commands/migrate-look.ts');
      await migrateVerify(options);
    });
}

/** For who changes the schema, in a checkout. */
function addMigrateWrites(migrate: Command): void {
  migrate
    .command('generate')
    .description('write the migration that leads to migrations/schema.sql, and its undo; for development')
    .argument('<name>', 'of the migration: a-z, 0-9 and _')
    .option('--dry-run', 'print what would be written')
    .option('--json', 'as one line of JSON')
    .action(async (name: string, options: Omit<MigrateGenerateOptions, 'name'>) => {
      const { migrateGenerate } = await import('../commands/migrate-generate.ts');
      await migrateGenerate({ name, ...options });
    });
  migrate
    .command('lint')
    .description('say what migrations block, lose or break, where their files do not answer for it; for development')
    .argument('[files...]', 'some of a directory; without any, those of this release')
    .option('--json', 'as one line of JSON')
    .action(async (files: string[], options: MigrateLintOptions) => {
      const { migrateLint } = await import('../commands/migrate-lint.ts');
      await migrateLint(files, options);
    });
}
