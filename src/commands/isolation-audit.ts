import { credentials } from '@grpc/grpc-js';
import { type AuditOptions, auditIsolation } from '../audit/isolation/audit.ts';
import { GROUPS, type Group } from '../audit/isolation/check.ts';
import { documentOf, type Site, tellResults, verdictOf } from '../audit/isolation/report.ts';
import { startTemporary } from '../audit/isolation/temporary.ts';
import { loadConfig } from '../config.ts';
import { provideDatabase } from '../db/provide.ts';
import { formatAddress, parseAddress } from '../rpc/listen.ts';
import { channelCredentials } from './channel.ts';
import { untilInterrupted } from './interrupt.ts';
import { print, tell } from './output.ts';
import { type RemoteOptions, signerOf } from './remote.ts';

export interface IsolationAuditOptions extends RemoteOptions {
  /** The gRPC address of a running service; absent: one is started, and ended with the audit. */
  readonly address?: string;
  readonly only?: readonly Group[];
  /** False leaves the timings out. */
  readonly timings: boolean;
  /** Calls under load; 0 leaves it out. */
  readonly load: number;
  readonly json?: boolean;
}

type Target = Pick<AuditOptions, 'address' | 'credentials' | 'databaseUrl' | 'signer' | 'exclusive'> & { site: Site };

const findTarget = async (
  options: IsolationAuditOptions,
  opened: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<Target> => {
  if (options.address === undefined) {
    const { database, ...temporary } = await startTemporary(opened, signal);
    const site = { service: `a temporary service at ${temporary.address}`, database };
    return { ...temporary, credentials: credentials.createInsecure(), exclusive: true, site };
  }
  const address = formatAddress(parseAddress(options.address));
  const config = loadConfig(process.env, 'command');
  const database = await provideDatabase(config, { share: true, log: { info: tell }, signal });
  opened.defer(() => database.stop());
  return {
    address,
    credentials: channelCredentials(options),
    databaseUrl: database.appUrl,
    signer: signerOf(options),
    exclusive: false,
    site: { service: `the service at ${address}`, database: database.note },
  };
};

const groupsOf = ({ only = GROUPS, timings }: IsolationAuditOptions): readonly Group[] =>
  only.filter((group) => timings || group !== 'timings');

/**
 * Proves that no project's rows reach who is no member, on a running service and its database, or on temporary ones. The exit
 * code is 1 when a check does not hold, or when authentication is off, so that nothing is proven of who may act.
 * @throws Error when the service or the database cannot be used
 */
export async function isolationAudit(options: IsolationAuditOptions): Promise<void> {
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const { site, ...target } = await findTarget(options, opened, signal);
    if (!options.json) print(`Isolation audit of ${site.service}\nand its database, ${site.database}`);
    const began = performance.now();
    const report = await auditIsolation({
      ...target,
      groups: groupsOf(options),
      load: options.load,
      signal,
      tell: options.json ? () => {} : tellResults(print),
      progress: (done) => tell(`${done} of ${options.load} calls`),
    });
    const seconds = Math.round((performance.now() - began) / 100) / 10;
    print(options.json ? documentOf(site, report, seconds) : verdictOf(report, seconds));
    if (!report.ok || !report.authenticated) process.exitCode = 1;
  });
}
