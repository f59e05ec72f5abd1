import { randomBytes } from 'node:crypto';
import { after } from 'node:test';
import type { Client } from '@grpc/grpc-js';
import type { AccessLog } from '../../src/audit/access-log.ts';
import { loadConfig } from '../../src/config.ts';
import { AgentExecutionService } from '../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ChangeService } from '../../src/gen/jeex/persistence/v1/change_service_pb.js';
import { DatabaseService } from '../../src/gen/jeex/persistence/v1/database_service_pb.js';
import { DocumentService } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from '../../src/gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService, Role } from '../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from '../../src/gen/jeex/persistence/v1/user_service_pb.js';
import { createLog, type Logger } from '../../src/log.ts';
import { loadRing } from '../../src/sealing/ring.ts';
import { startService } from '../../src/service.ts';
import { NO_ACCESS_LOG } from './access.ts';
import { clientOf, openChannel } from './client.ts';
import { type TestDatabase, useTestDatabase } from './postgres.ts';

/** Clients of every service on one channel. */
export const clientsOn = (channel: Client) => ({
  users: clientOf(UserService, channel),
  projects: clientOf(ProjectService, channel),
  documents: clientOf(DocumentService, channel),
  executions: clientOf(AgentExecutionService, channel),
  exports: clientOf(ExportService, channel),
  changes: clientOf(ChangeService, channel),
  database: clientOf(DatabaseService, channel),
});
export type Clients = ReturnType<typeof clientsOn>;

export interface TestService extends Clients {
  readonly grpc: string;
  readonly http: string;
  readonly channel: Client;
  readonly db: TestDatabase;
  stop(): Promise<void>;
}

interface ServiceOptions {
  /** Environment variables besides the defaults. */
  readonly env?: Readonly<Record<string, string>>;
  /** Instead of the database's own URL as jeex_app, such as a proxy's before it. */
  readonly appUrl?: (db: TestDatabase) => string;
  /** Instead of a database of its own. */
  readonly db?: TestDatabase;
  /** Instead of none. */
  readonly accessLog?: AccessLog;
  /** Instead of one that writes to standard error, silent unless TEST_LOG_LEVEL is set. */
  readonly log?: Logger;
  /** What its clients send with every call. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What the services of tests seal with. */
export const ENCRYPTION_KEY = `1:${'5e'.repeat(32)}`;

/** Runs the whole service on random ports and a migrated database of its own, until the file's tests have ended. */
export const useService = async (options: ServiceOptions = {}): Promise<TestService> => {
  const db = options.db ?? (await useTestDatabase());
  const appUrl = options.appUrl?.(db) ?? db.appUrl;
  const config = loadConfig({
    GRPC_LISTEN: '127.0.0.1:0',
    HTTP_LISTEN: '127.0.0.1:0',
    DATABASE_URL: appUrl,
    MIGRATION_DATABASE_URL: db.ownerUrl,
    MONITOR_DATABASE_URL: db.urlAs('monitor'),
    LISTEN_DATABASE_URL: db.urlAs('app'),
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    SHUTDOWN_GRACE_SECONDS: '5',
    LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'silent',
    ...options.env,
  });
  const service = await startService({
    config,
    databaseUrl: appUrl,
    monitorUrl: config.monitorDatabaseUrl ?? appUrl,
    listenUrl: config.listenDatabaseUrl,
    ring: loadRing(config.encryptionKeys, null),
    accessLog: options.accessLog ?? NO_ACCESS_LOG,
    log: options.log ?? createLog(config.logLevel),
  });
  const channel = openChannel(service.addresses.grpc, options.headers);
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= service.stop().finally(() => channel.close());
    return stopped;
  };
  after(stop);
  return { ...clientsOn(channel), grpc: service.addresses.grpc, http: service.addresses.http, channel, db, stop };
};

/** A new user's id. */
export const newUser = async ({ users }: Clients, name = 'Somebody'): Promise<string> => {
  const email = `${randomBytes(8).toString('hex')}@example.org`;
  return (await users.createUser({ email, name })).user?.id ?? '';
};

/** A new project of a new owner, with a member of each other role and a stranger. */
export const newProject = async (clients: Clients, language = 'en') => {
  const owner = await newUser(clients, 'Owner');
  const editor = await newUser(clients, 'Editor');
  const viewer = await newUser(clients, 'Viewer');
  const stranger = await newUser(clients, 'Stranger');
  const { project } = await clients.projects.createProject({ name: 'A project', language }, { actor: owner });
  const projectId = project?.id ?? '';
  await clients.projects.setMember({ projectId, userId: editor, role: Role.EDITOR }, { actor: owner });
  await clients.projects.setMember({ projectId, userId: viewer, role: Role.VIEWER }, { actor: owner });
  return { projectId, owner, editor, viewer, stranger };
};
