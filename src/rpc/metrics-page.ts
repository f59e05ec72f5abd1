import { randomUUIDv7 } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { AccessLog } from '../audit/access-log.ts';
import { DatabaseService } from '../gen/jeex/persistence/v1/database_service_pb.js';
import type { Telemetry } from '../telemetry/preload.ts';
import type { MetricSources } from '../telemetry/producer.ts';
import { type Caller, compileAccess } from './access.ts';
import { type CodeName, type Failure, toFailure } from './errors.ts';
import { answerJson } from './guard.ts';
import type { Page } from './http.ts';
import type { Authenticate } from './pipeline.ts';

export interface MetricsPageOptions {
  readonly sources: MetricSources;
  readonly telemetry: Telemetry;
  /** Null: anybody may read the metrics. */
  readonly authenticate: Authenticate | null;
  readonly log: Logger;
  readonly accessLog: AccessLog;
}

const PATH = '/metrics';
const HEADERS = { 'content-type': 'text/plain; version=0.0.4; charset=utf-8', 'cache-control': 'no-store' };

/** The page `/metrics`, for Prometheus. Who is refused is on record; who is answered has learnt nothing of anybody. */
export const metricsPage = (options: MetricsPageOptions): Page => {
  const { telemetry, authenticate, log } = options;
  const { scrapesOff } = telemetry.settings;
  const scrape = together(() => openExposition(options));
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    const refused = authenticate && (await refusal(authenticate, request));
    if (refused) return refuse(options, response, refused.failure, refused.caller);
    const text = await scrape();
    response.writeHead(200, { ...HEADERS, 'content-length': Buffer.byteLength(text) });
    response.end(text);
  };
  return (request, response) => {
    if (scrapesOff !== null) {
      return answerJson(response, 404, { code: 'unimplemented', message: `metrics are off: ${scrapesOff}` });
    }
    serve(request, response).catch((error) => {
      log.error({ err: error }, 'the metrics could not be read');
      answerJson(response, 500, { code: 'internal', message: 'the metrics could not be read' });
    });
  };
};

/** Loaded when somebody asks for the first time: most of what it needs takes a tenth of a second. */
const openExposition = async ({ sources, telemetry }: MetricsPageOptions) => {
  const [{ createExposition }, { createProducer }] = await Promise.all([
    import('../telemetry/exposition.ts'),
    import('../telemetry/producer.ts'),
  ]);
  const { sdk } = telemetry;
  return createExposition(sdk ? { collect: (asked) => sdk.scrape.collect(asked) } : createProducer(() => sources));
};

/** Opens what is read once, and lets those who read at the same time share one reading. */
const together = (open: () => Promise<() => Promise<string>>): (() => Promise<string>) => {
  let opened: Promise<() => Promise<string>> | null = null;
  let reading: Promise<string> | null = null;
  return () => {
    opened ??= open();
    reading ??= opened
      .then((read) => read())
      .finally(() => {
        reading = null;
      });
    return reading;
  };
};

/** Who may read the database's health may read the metrics. */
const checkAccess = compileAccess(DatabaseService.method.getDatabaseHealth);

interface Refused {
  readonly failure: Failure;
  /** Null: not authenticated. */
  readonly caller: Caller | null;
}

/** Null when the request may be answered. */
const refusal = async (authenticate: Authenticate, { headers }: IncomingMessage): Promise<Refused | null> => {
  let caller: Caller | null = null;
  try {
    caller = await authenticate((name) => headers[name]?.toString());
    checkAccess(caller, null);
    return null;
  } catch (error) {
    return { failure: toFailure(error, { mutation: false, started: false }), caller };
  }
};

const STATUS: Readonly<Partial<Record<CodeName, number>>> = { UNAUTHENTICATED: 401, PERMISSION_DENIED: 403 };

const refuse = (
  { log, accessLog }: MetricsPageOptions,
  response: ServerResponse,
  { code, reason, message, cause }: Failure,
  caller: Caller | null,
): void => {
  const correlationId = randomUUIDv7();
  const name = caller?.name ?? '';
  log.warn({ method: PATH, caller: name, correlationId, code, reason, err: cause }, 'call');
  accessLog.record({
    rpc: PATH,
    read: true,
    caller: name,
    actor: null,
    projects: [],
    users: [],
    result: reason ?? code,
    correlationId,
    admitted: false,
    durationMs: 0,
  });
  if (code === 'UNAUTHENTICATED') response.setHeader('www-authenticate', 'Bearer');
  response.setHeader('x-correlation-id', correlationId);
  answerJson(response, STATUS[code] ?? 500, { code: code.toLowerCase(), message });
};
