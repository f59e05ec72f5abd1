import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { ConfigError } from './config.ts';
import { VERSION } from './version.ts';

/** What the command answers to the shell. */
const EXIT = { done: 0, failed: 1, wrongUse: 2 } as const;

/** Commands load their code when they run, so that `--help` does not wait for what it does not need. */
function createProgram(): Command {
  const program = new Command('jeex-persistence')
    .description('The persistence service of JEEX Idea: users, projects, documents, executions and exports over gRPC.')
    .version(VERSION)
    .showHelpAfterError('(add --help for the commands and options)')
    .addHelpText('after', '\nThe configuration comes from the environment: see .env.example.')
    .exitOverride();
  addServe(program);
  addMigrate(program);
  addOthers(program);
  return program;
}

function addServe(program: Command): void {
  program
    .command('serve', { isDefault: true })
    .description('run the service (the default)')
    .option('--ephemeral', 'random ports and a temporary database that is gone at the end')
    .option('--ready-json', 'print one line of JSON with the addresses when ready; end when standard input closes')
    .action(async (options: { ephemeral?: boolean; readyJson?: boolean }) => {
      const { serve } = await import('./commands/serve.ts');
      await serve({ ephemeral: options.ephemeral ?? false, readyJson: options.readyJson ?? false });
    });
}

function addMigrate(program: Command): void {
  const migrate = program.command('migrate').description('bring the schema up, take it down, or show where it is');
  migrate
    .command('up')
    .description('apply what is missing')
    .option('--dry-run', 'print the SQL instead of running it')
    .action(async (options: { dryRun?: boolean }) => {
      const { migrateUp } = await import('./commands/migrate.ts');
      await migrateUp({ dryRun: options.dryRun ?? false });
    });
  migrate
    .command('down')
    .description('undo the migrations above a version; what they made is lost')
    .requiredOption('--to <version>', 'the version to go back to; 0 undoes all', parseVersion)
    .action(async (options: { to: number }) => {
      const { migrateDown } = await import('./commands/migrate.ts');
      await migrateDown(options);
    });
  migrate
    .command('status')
    .description('show what is applied, what is missing, and what is wrong')
    .option('--json', 'as one line of JSON')
    .action(async (options: { json?: boolean }) => {
      const { migrateStatus } = await import('./commands/migrate.ts');
      await migrateStatus({ json: options.json ?? false });
    });
}

function addOthers(program: Command): void {
  program
    .command('bootstrap')
    .description(
      'create the roles (with new passwords, unless OWNER_PASSWORD and APP_PASSWORD are set) and the database',
    )
    .addOption(new Option('--database <name>', 'the database').default('jeex'))
    .action(async (options: { database: string }) => {
      const { bootstrapCommand } = await import('./commands/bootstrap.ts');
      await bootstrapCommand(options);
    });
  program
    .command('demo')
    .description('play the main job through the gRPC API, against a running service or a temporary one')
    .option('--address <host:port>', 'the gRPC address of a running service; without it a temporary one is started')
    .option('--json', 'one line of JSON at the end instead of the story')
    .action(async (options: { address?: string; json?: boolean }) => {
      const { demo } = await import('./commands/demo.ts');
      await demo(options);
    });
}

function parseVersion(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('expected a whole number from 0.');
  return Number(text);
}

/** Runs the command that the arguments name, and sets the process's exit code. */
export async function run(argv: readonly string[]): Promise<void> {
  // Whoever reads the output may stop reading (`| head`): that is no failure of the command.
  process.stdout.on('error', () => {});
  try {
    await createProgram().parseAsync(argv);
  } catch (error) {
    process.exitCode = exitCode(error);
    // Commander has said its own errors already.
    if (!(error instanceof CommanderError)) process.stderr.write(`jeex-persistence: ${message(error)}\n`);
  }
}

function exitCode(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.wrongUse;
  return error instanceof ConfigError ? EXIT.wrongUse : EXIT.failed;
}

/** An AggregateError, which a refused connection is, says nothing by itself. */
function message(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(message).join('; ');
  return error instanceof Error ? error.message : String(error);
}
