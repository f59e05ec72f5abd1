// What one could write instead: grpc-js, the generated messages, and prepared statements on pg's pool. No isolation,
// authorisation, validation or telemetry.

import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type handleUnaryCall, Server, status } from '@grpc/grpc-js';
import { Pool } from 'pg';
import { loadConfig } from '../../../src/config.ts';
import { TYPES } from '../../../src/db/pg-types.ts';
import { toVersion, type VersionRow } from '../../../src/documents/version.ts';
import {
  GetVersionRequestSchema,
  GetVersionResponseSchema,
  View,
} from '../../../src/gen/jeex/persistence/v1/document_service_pb.js';
import { MAX_MESSAGE_BYTES } from '../../../src/rpc/limits.ts';
import { serveGrpc } from './grpc.ts';

const { databaseUrl, poolSize } = loadConfig();
const pool = new Pool({ connectionString: databaseUrl ?? '', max: poolSize, types: TYPES, idleTimeoutMillis: 0 });
// A connection that is lost fails the calls on it.
pool.on('error', () => {});

const COLUMNS = `v.id, v.project_id, v.document_type, v.version, v.content_sha256, v.size_bytes, v.metadata, v.reason,
  v.restored_from_version, v.readability_score, v.grammar_score, v.created_by, v.caller, v.correlation_id, v.execution_id,
  v.create_time, v.project_revision, b.content`;
const BODY = 'join jeex.document_bodies b on b.project_id = v.project_id and b.sha256 = v.content_sha256';
const NUMBERED = {
  name: 'numbered',
  text: `select ${COLUMNS} from jeex.document_versions v ${BODY}
         where v.project_id = $1 and v.document_type = $2 and v.version = $3`,
};
const HEAD = {
  name: 'head',
  text: `select ${COLUMNS} from jeex.documents d
         join jeex.document_versions v on v.project_id = d.project_id and v.document_type = d.document_type
           and v.version = d.head_version ${BODY}
         where d.project_id = $1 and d.document_type = $2`,
};

type Row = VersionRow & { readonly content: string };

const getVersion = async ({
  projectId,
  documentType,
  version,
  view,
}: MessageShape<typeof GetVersionRequestSchema>): Promise<MessageInitShape<typeof GetVersionResponseSchema>> => {
  const { rows } =
    version === 0
      ? await pool.query<Row>({ ...HEAD, values: [projectId, documentType] })
      : await pool.query<Row>({ ...NUMBERED, values: [projectId, documentType, version] });
  const [row] = rows;
  if (row === undefined) throw Object.assign(new Error('there is no such version'), { code: status.NOT_FOUND });
  return { version: toVersion(row, view === View.BASIC ? '' : row.content) };
};

const definition = <I extends DescMessage, O extends DescMessage>(path: string, input: I, output: O) => ({
  path,
  requestStream: false as const,
  responseStream: false as const,
  requestSerialize: (message: MessageShape<I>) => Buffer.from(toBinary(input, message)),
  requestDeserialize: (bytes: Buffer): MessageShape<I> => fromBinary(input, bytes),
  responseSerialize: (message: MessageShape<O>) => Buffer.from(toBinary(output, message)),
  responseDeserialize: (bytes: Buffer): MessageShape<O> => fromBinary(output, bytes),
});

const serve =
  <I, O extends DescMessage>(
    output: O,
    answer: (request: I) => Promise<MessageInitShape<O>>,
  ): handleUnaryCall<I, MessageShape<O>> =>
  (call, callback) => {
    answer(call.request).then(
      (message) => callback(null, create(output, message)),
      (error) => callback(error),
    );
  };

const server = new Server({ 'grpc.max_receive_message_length': MAX_MESSAGE_BYTES });
server.addService(
  {
    GetVersion: definition(
      '/jeex.persistence.v1.DocumentService/GetVersion',
      GetVersionRequestSchema,
      GetVersionResponseSchema,
    ),
  },
  { GetVersion: serve(GetVersionResponseSchema, getVersion) },
);
await serveGrpc(server);
