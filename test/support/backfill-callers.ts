import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, Client as GrpcClient } from '@grpc/grpc-js';
import { DocumentService } from '../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { clientOf } from './client.ts';
import { percentile } from './percentile.ts';

/** Between a caller's calls. */
const PAUSE_MS = 20;

/** Who appends what is stored already meets its row, which a batch may be about to change. */
export const KINDS = ['GetVersion', 'AppendVersion', 'AppendVersion, content that is there'] as const;
type Kind = (typeof KINDS)[number];
interface Call {
  readonly kind: Kind;
  /** By the monotonic clock. */
  readonly began: number;
  readonly took: number;
  readonly failure: string | null;
}

interface Callers {
  readonly address: string;
  readonly actor: string;
  /** Each has a document `idea`. */
  readonly projects: readonly string[];
  /** How many of it. */
  readonly versions: number;
  /** Callers of each kind. */
  readonly ofEach: number;
}

/** Callers that send one call after the other, with a pause between, until they are stopped. */
export const startCallers = ({ address, actor, projects, versions, ofEach }: Callers) => {
  const channel = new GrpcClient(address, credentials.createInsecure());
  const documents = clientOf(DocumentService, channel);
  const any = (numbers: number): number => Math.floor(Math.random() * numbers);
  const project = (): { projectId: string } => ({ projectId: projects[any(projects.length)] ?? '' });
  const read = (of: { projectId: string }) =>
    documents.getVersion({ ...of, documentType: 'idea', version: 1 + any(versions) }, { actor });
  const append = (to: { projectId: string }, content: string) =>
    documents.appendVersion({ ...to, documentType: 'notes', content }, { actor });
  /** What makes the next call ready to be sent, and timed. */
  const next: Record<Kind, () => Promise<() => Promise<unknown>>> = {
    GetVersion: async () => () => read(project()),
    AppendVersion: async () => () => append(project(), `# ${Math.random()}`),
    'AppendVersion, content that is there': async () => {
      const one = project();
      const { version } = await read(one);
      return () => append(one, version?.content ?? '');
    },
  };
  const calls: Call[] = [];
  let going = true;
  const call = async (kind: Kind) => {
    while (going) {
      let began = performance.now();
      const failure = await next[kind]()
        .then((send) => {
          began = performance.now();
          return send();
        })
        .then(
          () => null,
          (error: unknown) => String(error),
        );
      calls.push({ kind, began, took: performance.now() - began, failure });
      await sleep(PAUSE_MS);
    }
  };
  const callers = KINDS.flatMap((kind) => Array.from({ length: ofEach }, () => call(kind)));
  return {
    calls,
    stop: async () => {
      going = false;
      await Promise.all(callers);
      channel.close();
    },
  };
};

/** Of the calls that were in flight in a span of time. */
export const latencies = (calls: readonly Call[], kind: Kind, from: number, to: number) => {
  const took = calls
    .filter((call) => call.kind === kind && call.began < to && call.began + call.took > from)
    .map((call) => call.took);
  return { calls: took.length, p50: percentile(took, 0.5), p99: percentile(took, 0.99), max: percentile(took, 1) };
};
