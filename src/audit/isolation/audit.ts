import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import type { ChannelCredentials } from '@grpc/grpc-js';
import type { Client } from 'pg';
import { registry } from '../../db/statement.ts';
import { DatabaseService } from '../../gen/jeex/persistence/v1/database_service_pb.js';
import { SCOPES } from '../../rpc/access.ts';
import { SERVICES } from '../../service.ts';
import { catalogChecks } from './catalog.ts';
import { type Check, type Group, type Result, runChecks } from './check.ts';
import { connectAsApp, inTransaction } from './database.ts';
import { Door } from './door.ts';
import { foreignChecks } from './foreign.ts';
import { forgedChecks } from './forged.ts';
import { loadChecks } from './load.ts';
import { membershipChecks } from './membership.ts';
import { planChecks, type StatementText } from './plans.ts';
import { roleChecks } from './roles.ts';
import type { Service } from './service.ts';
import { tableChecks } from './tables.ts';
import { timingChecks } from './timings.ts';
import { goodToken, type Signer } from './tokens.ts';
import { newWorld, type Pair, Scratch } from './world.ts';

export interface AuditOptions {
  /** Of the service's gRPC door. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  /** The service's database, in the service's role. */
  readonly databaseUrl: string;
  /** Null: no key is given. */
  readonly signer: Signer | null;
  /** Whether the service is there for the audit alone. */
  readonly exclusive: boolean;
  readonly groups: readonly Group[];
  /** How many calls the load has. */
  readonly load: number;
  readonly signal: AbortSignal;
  readonly tell: (result: Result) => void;
  readonly progress: (done: number) => void;
  /** Instead of the service's own: for tests of the audit. */
  readonly statements?: readonly StatementText[];
}

export interface Report {
  /** Whether every check that was done holds. */
  readonly ok: boolean;
  /** Whether the service asks who calls; if not, whoever reaches it may act as the system, and nothing shuts it out. */
  readonly authenticated: boolean;
  readonly results: readonly Result[];
  /** What could not be removed again. */
  readonly left: readonly string[];
}

/** What the service wrote has to be in the database under audit. @throws Error when it is not */
const confirmDatabase = async (client: Client, project: string): Promise<void> => {
  const { rows } = await inTransaction(client, () =>
    client.query<{ verdict: string }>(`select verdict from enter_project($1, null, 'reader')`, [project]),
  );
  if (rows[0]?.verdict !== 'PROJECT_NOT_FOUND') return;
  throw new Error('the service works on another database than this one: set DATABASE_URL or DATA_DIR to its own');
};

/** The pair of projects, made with the first check that needs it. */
const lazyPair = (door: Door, client: Client): (() => Promise<Pair>) => {
  let made: Promise<Pair> | undefined;
  const make = async () => {
    const pair = { a: await newWorld(door), b: await newWorld(door) };
    await confirmDatabase(client, pair.b.facts.project);
    return pair;
  };
  return () => {
    made ??= make();
    return made;
  };
};

/** Whether the service asks for tokens, and takes the audit's. @throws Error saying what to do when it does not */
const authenticates = async (door: Door, signer: Signer | null): Promise<boolean> => {
  const { getServerInfo } = DatabaseService.method;
  const plain = await door.call(getServerInfo, create(getServerInfo.input), { token: null });
  if (plain.outcome === 'OK') return false;
  if (plain.outcome !== 'UNAUTHENTICATED') throw new Error(`the service does not answer: ${plain.said}`);
  if (signer === null) {
    throw new Error(
      'the service authenticates its callers: give --key, a private key whose public half is in its AUTH_JWKS',
    );
  }
  const { outcome, said } = await door.call(getServerInfo, create(getServerInfo.input), {});
  if (outcome === 'OK') return true;
  throw new Error(`the service refuses a token made with --key, for ${signer.audience} by ${signer.issuer}: ${said}`);
};

const checksOf = (options: AuditOptions, client: Client, service: Service): readonly Check[] => {
  const { exclusive, groups, load: calls, progress, signal } = options;
  const statements = options.statements ?? [...registry.values()];
  return [
    ...catalogChecks(client),
    ...planChecks(client, statements),
    ...membershipChecks(client, service.pair),
    ...tableChecks(client, service.pair),
    ...foreignChecks(service),
    ...timingChecks(service),
    ...roleChecks(service, { exclusive }),
    ...forgedChecks(service),
    ...loadChecks(service, { calls, progress, signal }),
  ].filter(({ group }) => groups.includes(group));
};

/**
 * Audits a running service and its database on projects and users of its own, which it removes again, whatever happens.
 * @returns what every check saw
 * @throws Error when the service or its database cannot be reached; the signal's reason after an interruption
 */
export const auditIsolation = async (options: AuditOptions): Promise<Report> => {
  const { address, credentials, databaseUrl, signer, signal, tell } = options;
  await using opened = new AsyncDisposableStack();
  const client = await connectAsApp(databaseUrl);
  opened.defer(() => client.end());
  const scratch = new Scratch();
  const door = new Door({
    address,
    credentials,
    token: signer && (await goodToken(signer)),
    correlationId: randomUUID(),
    onAnswer: (method, bytes) => scratch.note(method, bytes),
  });
  opened.defer(() => door.close());
  const service: Service = {
    door,
    methods: SERVICES.flatMap(({ methods }) => methods),
    scopes: new Set(SCOPES),
    pair: lazyPair(door, client),
    signer: (await authenticates(door, signer)) ? signer : null,
  };
  let left: readonly string[] = [];
  let results: readonly Result[] = [];
  try {
    results = await runChecks(checksOf(options, client, service), tell, signal);
  } finally {
    left = await scratch.remove(door);
  }
  const ok = left.length === 0 && results.every((result) => result.ok);
  return { ok, authenticated: service.signer !== null, results, left };
};
