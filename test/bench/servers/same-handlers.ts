import type { DescMethod } from '@bufbuild/protobuf';
import { createAccessLog } from '../../../src/audit/access-log.ts';
import { startAuthenticator } from '../../../src/auth/authenticator.ts';
import { loadConfig } from '../../../src/config.ts';
import { documentHandlers } from '../../../src/documents/rpc.ts';
import { executionHandlers } from '../../../src/executions/rpc.ts';
import { AgentExecutionService } from '../../../src/gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { DocumentService } from '../../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { ProjectService } from '../../../src/gen/jeex/persistence/v1/project_service_pb.js';
import { createLog } from '../../../src/log.ts';
import { projectHandlers } from '../../../src/projects/rpc.ts';
import type { Context } from '../../../src/rpc/context.ts';
import { implement } from '../../../src/rpc/handlers.ts';
import { requestIdentifier } from '../../../src/rpc/identity.ts';
import { createPager } from '../../../src/rpc/page.ts';
import { type Codec, createPipeline, type Header, type Link } from '../../../src/rpc/pipeline.ts';
import { compilePlans } from '../../../src/rpc/plan.ts';
import { loadRing } from '../../../src/sealing/ring.ts';
import { openSealing } from '../../../src/sealing/sealing.ts';
import { createMeasurements } from '../../../src/telemetry/measurements.ts';
import { openTransactions } from './transactions.ts';

/** A call as either server has it: its request is whole. */
interface Incoming<T> extends Link {
  readonly header: Header;
  readonly codec: Codec<T>;
}

/** One method of the service, for a server that is compared. */
export interface SameMethod {
  readonly method: DescMethod;
  /** Answers a call by the service's own pipeline and handler. @throws Failure */
  answer<T>(call: Incoming<T>): Promise<T>;
}

/** The service's own handlers and pipeline, on a database that sets the scope by a transaction for each call. */
export const sameHandlers = async (): Promise<SameMethod[]> => {
  const config = loadConfig();
  const log = createLog('warn');
  const db = await openTransactions(config.databaseUrl ?? '', config.poolSize);
  const sealing = await openSealing(db, loadRing(config.encryptionKeys, null));
  // These handlers ask for nothing else.
  const context = { db, pager: createPager(sealing.pageTokenKey), sealing } as Context;
  const authenticator = config.auth && (await startAuthenticator(config.auth, log));
  const { target, reads, full } = config.access;
  const accessLog = await createAccessLog({ place: { to: target ?? '/dev/null', own: false }, reads, full }, log);
  const plans = compilePlans([
    implement(DocumentService, documentHandlers(context)),
    implement(ProjectService, projectHandlers(context)),
    implement(AgentExecutionService, executionHandlers(context)),
  ]);
  const pipeline = createPipeline({
    log,
    accessLog,
    measurements: createMeasurements(),
    authenticate: authenticator?.authenticate ?? null,
    identifyRequest: requestIdentifier(sealing.requestKey),
  });
  return plans.map((plan) => ({
    method: plan.method,
    answer: async ({ header, codec, ...link }) => {
      const entry = pipeline.enter(plan, header, { system: 'grpc', deadline: link.deadline, cut: () => {} });
      await pipeline.admit(entry);
      return await pipeline.unary(entry, link, codec);
    },
  }));
};
