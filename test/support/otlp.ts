import { createServer as createTcpServer, type Socket } from 'node:net';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type MethodDefinition, Server, ServerCredentials, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('otlp.proto', import.meta.url));
const PATHS = {
  Traces: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  Metrics: '/opentelemetry.proto.collector.metrics.v1.MetricsService/Export',
  Logs: '/opentelemetry.proto.collector.logs.v1.LogsService/Export',
} as const;

type Value = string | number | boolean;
type Attributes = Readonly<Record<string, Value>>;

export interface ReceivedSpan {
  readonly traceId: string;
  readonly spanId: string;
  /** Empty for a root. */
  readonly parentId: string;
  readonly name: string;
  readonly kind: number;
  readonly status: number;
  readonly attributes: Attributes;
}

export interface ReceivedLog {
  readonly traceId: string;
  readonly spanId: string;
  readonly severity: string;
  readonly severityNumber: number;
  readonly body: Value;
  readonly attributes: Attributes;
}

export interface ReceivedMetric {
  readonly name: string;
  readonly unit: string;
  readonly kind: 'gauge' | 'counter' | 'updowncounter' | 'histogram';
  /** Of a histogram: how many values. */
  readonly points: readonly { readonly attributes: Attributes; readonly value: number; readonly bounds: number[] }[];
}

/** What a collector has received so far. */
export interface Received {
  readonly spans: ReceivedSpan[];
  readonly logs: ReceivedLog[];
  /** As last sent, by name. */
  readonly metrics: Map<string, ReceivedMetric>;
  resource: Attributes;
}

/** A collector on loopback, over gRPC. */
export interface Collector extends Received {
  readonly url: string;
  stop(): void;
}

// As proto-loader gives them, with everything that is absent left out.
interface Wire {
  readonly [field: string]: unknown;
}
const list = (message: Wire | undefined, field: string): Wire[] => (message?.[field] as Wire[] | undefined) ?? [];
const hex = (bytes: unknown): string => ((bytes as Buffer | undefined) ?? Buffer.alloc(0)).toString('hex');
const plainOf = (any: unknown): Value => {
  const [field, value] = Object.entries((any ?? {}) as Record<string, Value>)[0] ?? ['', ''];
  return field === 'int_value' ? Number(value) : value;
};
const attributesOf = (message: Wire | undefined): Attributes =>
  Object.fromEntries(list(message, 'attributes').map(({ key, value }) => [String(key), plainOf(value)]));

const within = (request: Wire, resources: string, scopes: string, items: string): Wire[] =>
  list(request, resources).flatMap((resource) => list(resource, scopes).flatMap((scope) => list(scope, items)));

const spanOf = (span: Wire): ReceivedSpan => ({
  traceId: hex(span.trace_id),
  spanId: hex(span.span_id),
  parentId: hex(span.parent_span_id),
  name: String(span.name),
  kind: Number(span.kind),
  status: Number((span.status as Wire | undefined)?.code ?? 0),
  attributes: attributesOf(span),
});

const logOf = (record: Wire): ReceivedLog => ({
  traceId: hex(record.trace_id),
  spanId: hex(record.span_id),
  severity: String(record.severity_text),
  severityNumber: Number(record.severity_number),
  body: plainOf(record.body),
  attributes: attributesOf(record),
});

const metricOf = (metric: Wire): ReceivedMetric => {
  const { gauge, sum, histogram } = metric as Record<string, Wire | undefined>;
  const kind = histogram ? 'histogram' : gauge ? 'gauge' : sum?.is_monotonic ? 'counter' : 'updowncounter';
  return {
    name: String(metric.name),
    unit: String(metric.unit ?? ''),
    kind,
    points: list(histogram ?? gauge ?? sum, 'data_points').map((point) => ({
      attributes: attributesOf(point),
      value: Number(point.count ?? point.as_double ?? point.as_int ?? 0),
      bounds: (point.explicit_bounds as number[] | undefined) ?? [],
    })),
  };
};

const take = {
  Traces: (received: Received, request: Wire) => {
    received.resource = attributesOf(list(request, 'resource_spans')[0]?.resource as Wire);
    received.spans.push(...within(request, 'resource_spans', 'scope_spans', 'spans').map(spanOf));
  },
  Metrics: ({ metrics }: Received, request: Wire) => {
    for (const metric of within(request, 'resource_metrics', 'scope_metrics', 'metrics').map(metricOf)) {
      metrics.set(metric.name, metric);
    }
  },
  Logs: ({ logs }: Received, request: Wire) => {
    logs.push(...within(request, 'resource_logs', 'scope_logs', 'log_records').map(logOf));
  },
};

/** Listens for OTLP. */
export const startCollector = async (): Promise<Collector> => {
  const received: Received = { spans: [], logs: [], metrics: new Map(), resource: {} };
  const { 'otlp.Receiver': definition } = loadSync(PROTO, { keepCase: true, longs: Number, includeDirs: [] });
  const methods = definition as unknown as Record<keyof typeof PATHS, MethodDefinition<Wire, Wire>>;
  const server = new Server({ 'grpc.max_receive_message_length': 64 * 1024 * 1024 });
  for (const signal of Object.keys(PATHS) as (keyof typeof PATHS)[]) {
    server.addService({ Export: { ...methods[signal], path: PATHS[signal] } } as unknown as ServiceDefinition, {
      Export: ({ request }: { request: Wire }, callback: (error: null, answer: Wire) => void) => {
        take[signal](received, request);
        callback(null, {});
      },
    });
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return Object.assign(received, { url: `http://127.0.0.1:${port}`, stop: () => server.forceShutdown() });
};

/** The same, stopped with the enclosing tests. */
export const useCollector = async (): Promise<Collector> => {
  const collector = await startCollector();
  after(collector.stop);
  return collector;
};

/** A collector that accepts connections, and never says a word. */
export const startBlackHole = async (): Promise<{ readonly url: string; stop(): void }> => {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).resume();
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const { port } = server.address() as { port: number };
  const stop = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `http://127.0.0.1:${port}`, stop };
};
