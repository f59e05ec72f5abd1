import { once } from 'node:events';
import { Agent, request } from 'node:https';
import { after } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { Client, credentials } from '@grpc/grpc-js';
import type { TlsConfig } from '../../src/config.ts';
import { UserService } from '../../src/gen/jeex/persistence/v1/user_service_pb.js';
import { createLog } from '../../src/log.ts';
import { openTls } from '../../src/rpc/tls.ts';
import { createAuthority, type Issued, useSecret } from './certificates.ts';
import { type Answers, encode, pathOf, sendGrpc, useEcho } from './echo.ts';

const { batchGetUsers } = UserService.method;
/** A user's id. */
export const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const LOOK_EVERY_MS = 10;
/** After so long, in milliseconds, a connection counts as one that stays. */
export const STAYS_OPEN_MS = 2000;

/** Who vouches for the server, and for the clients that it lets in. */
export const authority = await createAuthority('Test authority');
/** What the server shows at first. */
export const first = await authority.issue({ usage: 'server', dns: ['first.example'] });

/** What a secret holds of a server's certificate. */
export const filesOf = ({ cert, key }: Issued) => ({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert });

/** TLS by files that `pathIn` finds by their name; with `clientNames`, clients need a certificate. */
export const configOf = (pathIn: (name: string) => string, clientNames: readonly string[] = []): TlsConfig => ({
  certFile: pathIn('tls.crt'),
  keyFile: pathIn('tls.key'),
  clientCaFile: clientNames.length > 0 ? pathIn('ca.crt') : null,
  clientNames,
});

/** What a client shows of itself. */
export type Shown = Partial<Issued>;

const credentialsOf = ({ cert, key }: Shown = {}) =>
  credentials.createSsl(Buffer.from(authority.cert), key ? Buffer.from(key) : null, cert ? Buffer.from(cert) : null);

/** A gRPC client that trusts the authority. */
export const useClient = (address: string, shown?: Shown): Client => {
  const client = new Client(address, credentialsOf(shown), { 'grpc.ssl_target_name_override': 'first.example' });
  after(() => client.close());
  return client;
};

/** Both doors over TLS with in-memory handlers. */
export const useTls = async (
  answers: Answers = { 'UserService.batchGetUsers': async () => ({ users: [] }) },
  names?: string[],
) => {
  const secret = await useSecret(filesOf(first));
  const lines: Record<string, unknown>[] = [];
  const log = createLog('debug', { write: (line: string) => lines.push(JSON.parse(line)) });
  const tls = await openTls(configOf(secret.pathOf, names), log, LOOK_EVERY_MS);
  after(() => tls.close());
  const echo = await useEcho(answers, { tls, log });
  const said = (level: string, message: RegExp) =>
    lines.filter((line) => line.level === level && message.test(String(line.msg)));
  return { ...echo, secret, said };
};

/** Posts an empty batch over HTTPS: the status, and the first name of the server's certificate. */
export const ask = async (http: string, shown: Shown = {}, agent = new Agent({ keepAlive: false })) => {
  const asked = request(http + pathOf(batchGetUsers), {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, ca: authority.cert, agent },
    ...shown,
  });
  asked.end(JSON.stringify({ ids: [ID] }));
  const [response] = await once(asked, 'response');
  const socket: TLSSocket = response.socket;
  const seen = { status: response.statusCode, protocol: socket.getProtocol(), name: serverName(socket) };
  response.resume();
  await once(response, 'end');
  return seen;
};

/** The first name of the certificate a connection was shown. */
export const serverName = (socket: TLSSocket): string =>
  /DNS:(\w+)/.exec(socket.getPeerCertificate().subjectaltname ?? '')?.[1] ?? '';

/** Connects to a door, over TLS alone. */
export const openSocket = (address: string, options: ConnectionOptions = {}): TLSSocket => {
  const { hostname, port } = new URL(`tcp://${address.replace('https://', '')}`);
  return connect({ host: hostname, port: Number(port), ca: authority.cert, ...options });
};

/** Resolves with the error that ends a connection, or null when it closes without one; rejects when it stays open. */
export const fateOf = (socket: TLSSocket): Promise<string | null> =>
  new Promise((resolve, reject) => {
    socket.resume();
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.once('close', () => resolve(null));
    socket.setTimeout(STAYS_OPEN_MS, () => {
      reject(new Error('the connection stays open'));
      socket.destroy();
    });
  });

/** Calls a method that the doors of `useTls` answer. */
export const batch = (client: Client) => sendGrpc(client, batchGetUsers, encode(batchGetUsers, { ids: [ID] }));
