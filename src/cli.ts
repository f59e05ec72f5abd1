import { Command, CommanderError, Option } from 'commander';
import { GROUPS } from './audit/isolation/check.ts';
import {
  parseBatch,
  parseCalls,
  parseCount,
  parseGroups,
  parseId,
  parseKept,
  parseKeyId,
  parseListen,
  parseTarget,
  parseTimeout,
} from './cli/arguments.ts';
import { addMigrate } from './cli/migrate.ts';
import type { AlertsOptions } from './commands/alerts.ts';
import type { CertifyCommandOptions } from './commands/certify.ts';
import type { DemoOptions } from './commands/demo.ts';
import type { HealthOptions } from './commands/health.ts';
import type { IsolationAuditOptions } from './commands/isolation-audit.ts';
import type { TokenOptions } from './commands/token.ts';
import { EXIT } from './exit.ts';
import { VERSION } from './version.ts';

/** Commands load their code when they run, so that `--help` does not wait for what it does not need. */
function createProgram(): Command {
  const program = new Command('jeex-persistence')
    .description('The persistence service of JEEX Idea: users, projects, documents, executions and exports over gRPC.')
    .version(VERSION)
    .showHelpAfterError('(add --help for the commands and options)')
    .addHelpText('after', '\nThe configuration comes from the environment: see .env.example.')
    .exitOverride();
  addServe(program);
  addHealth(program);
  addMigrate(program);
  addChanges(program);
  addProject(program);
  addPrivacy(program);
  addToken(program);
  addKeys(program);
  addOthers(program);
  addIsolationAudit(program);
  addCertify(program);
  addDoctor(program);
  addAlerts(program);
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

function addHealth(program: Command): void {
  secured(program.command('health'))
    .description('ask a running service for its gRPC health; exit code 1 unless it is SERVING')
    .option('--address <host:port>', 'where; without it HEALTH_LISTEN, else GRPC_LISTEN', parseListen)
    .option('--service <name>', 'of which service, or readiness or liveness; without it the whole', '')
    .option('--timeout <ms>', 'how long to wait, in milliseconds', parseTimeout, 2000)
    .option('--json', 'as one line of JSON')
    .action(async (options: HealthOptions) => {
      const { checkHealth } = await import('./commands/health.ts');
      await checkHealth(options);
    });
}

function addChanges(program: Command): void {
  program
    .command('changes')
    .description('the record of changes')
    .command('verify')
    .description(
      "compute the whole chain of a project's changes again; exit code 1 when something was altered, removed or added",
    )
    .requiredOption('--project <id>', 'the project', parseId)
    .option('--kept <revision=chain>', 'a chain that was kept, to compare with; may be repeated', parseKept)
    .option('--json', 'as one line of JSON')
    .action(async (options: { project: string; kept?: ReadonlyMap<bigint, Buffer>; json?: boolean }) => {
      const { verifyChanges } = await import('./commands/changes.ts');
      await verifyChanges({ project: options.project, kept: options.kept ?? new Map(), json: options.json ?? false });
    });
}

function addProject(program: Command): void {
  const project = program.command('project').description('one project as a file');
  project
    .command('export')
    .description(
      'print a whole project: members, documents, executions, exports and changes, as of one moment, while services run; ' +
        'inputs and outputs stay sealed, documents are readable',
    )
    .argument('<id>', 'the project, deleted or not', parseId)
    .action(async (id: string) => {
      const { exportToFile } = await import('./commands/project.ts');
      await exportToFile({ id });
    });
  project
    .command('import')
    .description('make a project of what `project export` has printed, beside the others; all of it or nothing')
    .argument('[file]', 'the file; without it standard input is read')
    .option('--as <id>', 'under another id, or `new` for one that is made up; without it under its own', parseTarget)
    .option('--json', 'as one line of JSON')
    .action(async (file: string | undefined, options: { as?: string; json?: boolean }) => {
      const { importFromFile } = await import('./commands/project.ts');
      await importFromFile({ file, as: options.as, json: options.json ?? false });
    });
}

function addPrivacy(program: Command): void {
  program
    .command('user')
    .description('a user, for the right of access')
    .command('export')
    .description(
      'print what the database holds about a user, as one JSON document: its row, its memberships, what it made and did; ' +
        'without the content of projects, and without stored replies, which are sealed and kept for 24 hours',
    )
    .argument('<id>', 'the user', parseId)
    .option('--pretty', 'indented, instead of on one line')
    .action(async (id: string, options: { pretty?: boolean }) => {
      const { userExport } = await import('./commands/user.ts');
      await userExport({ id, pretty: options.pretty ?? false });
    });
  const erasures = program.command('erasures').description('the ledger of erased users');
  erasures
    .command('list')
    .description('print it, to be kept outside the database')
    .option('--json', 'one JSON object a line')
    .action(async (options: { json?: boolean }) => {
      const { listErasures } = await import('./commands/erasures.ts');
      await listErasures({ json: options.json ?? false });
    });
  erasures
    .command('apply')
    .description('erase again, after a restore or an import, whoever a kept ledger names')
    .option('--file <file>', 'the kept ledger; without it standard input is read')
    .option('--json', 'as one line of JSON')
    .action(async (options: { file?: string; json?: boolean }) => {
      const { applyErasures } = await import('./commands/erasures.ts');
      await applyErasures({ file: options.file, json: options.json ?? false });
    });
}

function addToken(program: Command): void {
  program
    .command('token')
    .description('make a token for development, and at the first time the keys that sign it')
    .requiredOption('--sub <name>', 'the calling service')
    .requiredOption('--scope <scopes>', 'what it may do: some of read, write, system, monitor, admin, between blanks')
    .option('--actors <ids>', 'the only users it may act for, separated by commas')
    .option('--projects <ids>', 'the only projects it may touch, separated by commas')
    .option('--ttl <time>', 'how long it is valid, such as 30s, 15m, 12h or 30d', '1h')
    .option('--key <file>', 'the private key (JWK) that signs it, instead of one made under DATA_DIR/auth')
    .option('--json', 'as one line of JSON')
    .action(async (options: TokenOptions, command: Command) => {
      const { printToken } = await import('./commands/token.ts');
      await printToken(options, (message) => command.error(`error: ${message}`));
    });
}

function addKeys(program: Command): void {
  const keys = program.command('keys').description('the keys that seal profiles, inputs and outputs');
  keys
    .command('rotate')
    .description('seal everything under the first key of ENCRYPTION_KEYS, while services run; run again, it goes on')
    .option('--batch <rows>', 'rows in a transaction', parseBatch, 100)
    .option('--json', 'as one line of JSON')
    .action(async (options: { batch: number; json?: boolean }) => {
      const { rotateKeys } = await import('./commands/keys.ts');
      await rotateKeys({ batch: options.batch, json: options.json ?? false });
    });
  keys
    .command('drop')
    .description('take a key out of the database under which nothing is sealed')
    .argument('<id>', 'its number', parseKeyId)
    .action(async (id: number) => {
      const { dropUnused } = await import('./commands/keys.ts');
      await dropUnused(id);
    });
  keys
    .command('status')
    .description('show how many rows are sealed under which key')
    .option('--json', 'as one line of JSON')
    .action(async (options: { json?: boolean }) => {
      const { showKeys } = await import('./commands/keys.ts');
      await showKeys({ json: options.json ?? false });
    });
}

function addOthers(program: Command): void {
  program
    .command('bootstrap')
    .description('create or update the roles (with the passwords in PASSWORDS_DIR, else new ones) and the database')
    .addOption(new Option('--database <name>', 'the database').default('jeex'))
    .action(async (options: { database: string }) => {
      const { bootstrapCommand } = await import('./commands/bootstrap.ts');
      await bootstrapCommand(options);
    });
  remote(program.command('demo'))
    .description('play the main job through the gRPC API, against a running service or a temporary one')
    .option('--json', 'one line of JSON at the end instead of the story')
    .action(async (options: DemoOptions) => {
      const { demo } = await import('./commands/demo.ts');
      await demo(options);
    });
}

/** How a running service is reached, for the commands that call one. */
const remote = (command: Command): Command =>
  secured(command)
    .option('--address <host:port>', 'the gRPC address of a running service; without it a temporary one is started')
    .option('--key <file>', 'the private key (JWK) for its tokens, whose public half is in its AUTH_JWKS');

/** The files that TLS to a running service needs. */
const secured = (command: Command): Command =>
  command
    .option('--ca <file>', 'who signed its certificate (PEM); set: the service is reached by TLS')
    .option('--cert <file>', 'the client certificate (PEM) it asks for')
    .option('--cert-key <file>', 'the key of that certificate (PEM)');

function addIsolationAudit(program: Command): void {
  remote(program.command('isolation-audit'))
    .description(
      "prove on scratch projects that no project's rows reach who is no member; exit code 1 when a check does not hold",
    )
    .option('--only <groups>', `some of ${GROUPS.join(', ')}, separated by commas`, parseGroups)
    .option('--load <calls>', 'calls under load; 0 leaves it out', parseCalls, 2000)
    .option('--no-timings', 'leave the timings out, on a machine that has much else to do')
    .option('--json', 'one JSON document at the end instead of the lines')
    .action(async (options: IsolationAuditOptions) => {
      const { isolationAudit } = await import('./commands/isolation-audit.ts');
      await isolationAudit(options);
    });
}

function addCertify(program: Command): void {
  remote(program.command('certify'))
    .description(
      'call a service from many sides on scratch projects, and prove from the ledger of all calls that it kept its promises; exit code 1 when one is broken',
    )
    .option('--seconds <n>', 'how long the callers work', parseCount(86_400), 30)
    .option('--minutes <n>', 'the same in minutes', parseCount(1_440))
    .option('--callers <n>', 'callers at the same time', parseCount(1_000), 16)
    .option('--projects <n>', 'scratch projects', parseCount(100), 4)
    .option('--watchers <n>', 'watches, which are cut and resumed', parseCount(1_000), 6)
    .option('--rate <n>', 'the most steps a second; 0: as many as they make', parseCalls, 0)
    .option('--seed <n>', 'of the choices the callers make; without it a new one', parseCalls)
    .option('--json', 'one JSON document at the end instead of the page')
    .action(async (options: CertifyCommandOptions) => {
      const { certify } = await import('./commands/certify.ts');
      await certify(options);
    });
}

function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description(
      'look at the configuration, the database and the pools, and tell how to mend what is wrong; exit code 1 when a check failed',
    )
    .option('--json', 'one JSON document at the end instead of the lines')
    .action(async (options: { json?: boolean }) => {
      const { doctor } = await import('./commands/doctor.ts');
      await doctor({ json: options.json ?? false });
    });
}

function addAlerts(program: Command): void {
  program
    .command('alerts')
    .description('show the alerts with the thresholds in force: their own, or what ALERTS says')
    .addOption(new Option('--prometheus', 'as a rule file for Prometheus').conflicts('json'))
    .option('--json', 'as one line of JSON')
    .action(async (options: AlertsOptions) => {
      const { showAlerts } = await import('./commands/alerts.ts');
      showAlerts(options);
    });
}

/** Runs the command that the arguments name, and sets the process's exit code. */
export async function run(argv: readonly string[]): Promise<void> {
  // Whoever reads the output may stop reading (`| head`): that is no failure of the command.
  process.stdout.on('error', () => {});
  try {
    await createProgram().parseAsync(argv);
  } catch (error) {
    process.exitCode = await exitCode(error);
    // Commander has said its own errors already.
    if (!(error instanceof CommanderError)) process.stderr.write(`jeex-persistence: ${message(error)}\n`);
  }
}

async function exitCode(error: unknown): Promise<number> {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.wrongUse;
  // Loaded here alone, since a probe that ends well should not wait for the configuration's code.
  const [{ ConfigError }, { MigrationRefused }] = await Promise.all([
    import('./config.ts'),
    import('./migrator/errors.ts'),
  ]);
  if (error instanceof MigrationRefused) return EXIT.refused;
  return error instanceof ConfigError ? EXIT.wrongUse : EXIT.failed;
}

/** An AggregateError, which a refused connection is, says nothing by itself. */
function message(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(message).join('; ');
  return error instanceof Error ? error.message : String(error);
}
