/** No connection was made: what is wrong and what to do about it, in one line for the operator. Holds no secret. */
export class ConnectFailure extends Error {
  /** SQLSTATE, or Node's or OpenSSL's code; empty where there was none. */
  readonly code: string;

  constructor(message: string, cause: Error & { readonly code?: string }) {
    super(message, { cause });
    this.name = 'ConnectFailure';
    this.code = cause.code ?? '';
  }
}

/** Where a database URL leads, for messages. */
interface Target {
  readonly host: string;
  /** Host and port. */
  readonly address: string;
  readonly database: string;
  readonly user: string;
  readonly sslmode: string;
  /** The files it names, by parameter. */
  readonly files: Readonly<Record<'sslrootcert' | 'sslcert' | 'sslkey', string | null>>;
}

const targetOf = (url: string): Target => {
  const { hostname, port, pathname, username, searchParams } = new URL(url);
  const host = searchParams.get('host') ?? decodeURIComponent(hostname);
  return {
    host,
    address: `${host}:${port || '5432'}`,
    database: decodeURI(pathname.slice(1)),
    user: decodeURIComponent(username),
    sslmode: searchParams.get('sslmode') ?? 'none',
    files: {
      sslrootcert: searchParams.get('sslrootcert'),
      sslcert: searchParams.get('sslcert'),
      sslkey: searchParams.get('sslkey'),
    },
  };
};

/** What Node, `pg` or a server says while a connection is being made. */
type Said = Error & {
  readonly code?: string;
  readonly path?: string;
  readonly errors?: readonly Error[];
  readonly cert?: { readonly subjectaltname?: string };
};

type Explain = (target: Target, said: Said) => string;

const untrusted: Explain = ({ address, files: { sslrootcert } }) =>
  sslrootcert === null
    ? `the certificate of ${address} is not signed by an authority that Node knows: name the file with its authority, sslrootcert=FILE in the URL`
    : `the certificate of ${address} is not signed by the authorities in sslrootcert (${sslrootcert}): put the authority that signed it there, in PEM, or connect to the right server`;

const otherName: Explain = ({ address, host }, { cert }) =>
  `the certificate of ${address} is not for ${host}, but for ${cert?.subjectaltname ?? 'no name'}: connect by such a name, or issue one for ${host}`;

const tooOld: Explain = ({ address }) =>
  `${address} speaks no TLS 1.3, and nothing older is accepted: raise its ssl_max_protocol_version (PostgreSQL) or client_tls_protocols (PgBouncer)`;

const wantsCertificate: Explain = ({ address }) =>
  `${address} does not accept the client's certificate: name one that its authority has signed, sslcert=FILE and sslkey=FILE in the URL`;

const noPem: Explain = ({ files }) => {
  const named = Object.entries(files).flatMap(([name, file]) => (file === null ? [] : [`${name} (${file})`]));
  return `the files for TLS are not what they should be, in PEM: ${named.join(', ')}`;
};

const unreadable: Explain = ({ address, files }, { path }) => {
  const parameter = Object.entries(files).find(([, file]) => file !== null && file === path)?.[0];
  return parameter ? `the file of ${parameter} in the URL cannot be read` : `there is no connection to ${address}`;
};

const refusesPassword: Explain = ({ address, user }) =>
  `${address} does not accept the password of the role ${user}: compare it with what bootstrap set; it may have been changed there`;

const lacksPassword: Explain = ({ address, user }) =>
  `${address} asks for the password of the role ${user}, and there is none: put it into the URL or name its file (…_PASSWORD_FILE)`;

const refusesRole: Explain = ({ address, user }) =>
  `${address} does not let the role ${user} in: does it exist, may it log in, does pg_hba.conf let it in from here, with or without TLS?`;

const noDatabase: Explain = ({ address, database }) =>
  `${address} has no database ${database}: correct the URL, or make it (\`jeex-persistence bootstrap\`)`;

const full: Explain = ({ address }) =>
  `${address} has no connection left: lower POOL_SIZE or the number of replicas, or raise its limits (\`jeex-persistence doctor\` adds them up)`;

const notReady: Explain = ({ address }) => `${address} is starting or stopping: wait until it accepts connections`;

const refused: Explain = ({ address }) =>
  `nothing accepts connections at ${address}: is it running, and is this its port?`;

const unresolved: Explain = ({ host }) =>
  `the name ${host} is not known: correct the URL, or the network's name service`;

const silent: Explain = ({ address }) =>
  `${address} does not answer: is it running, and does the network let this machine reach it?`;

const cutOff: Explain = ({ address }) =>
  `${address} has closed the connection before it was made: it may be starting or stopping, or not be PostgreSQL at all`;

/** By code: SQLSTATE, Node's, OpenSSL's. */
const BY_CODE: Readonly<Record<string, Explain>> = {
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  CERT_SIGNATURE_FAILURE: untrusted,
  CERT_UNTRUSTED: untrusted,
  INVALID_CA: untrusted,
  INVALID_PURPOSE: ({ address }) => `the certificate of ${address} is not for servers (extended key usage serverAuth)`,
  ERR_TLS_CERT_ALTNAME_INVALID: otherName,
  CERT_HAS_EXPIRED: ({ address }) => `the certificate of ${address} has expired: renew it`,
  CERT_NOT_YET_VALID: ({ address }) => `the certificate of ${address} is not valid yet: compare the clocks`,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: tooOld,
  ERR_SSL_UNSUPPORTED_PROTOCOL: tooOld,
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: wantsCertificate,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: wantsCertificate,
  ENOENT: unreadable,
  EACCES: unreadable,
  ECONNREFUSED: refused,
  ENOTFOUND: unresolved,
  EAI_AGAIN: unresolved,
  ETIMEDOUT: silent,
  EHOSTUNREACH: silent,
  ENETUNREACH: silent,
  ECONNRESET: cutOff,
  EPIPE: cutOff,
  '28P01': refusesPassword,
  '28000': refusesRole,
  '42501': refusesRole,
  '3D000': noDatabase,
  '53300': full,
  '57P01': notReady,
  '57P02': notReady,
  '57P03': notReady,
};

/** PgBouncer's limits on its clients. */
const TOO_MANY_CLIENTS = /max_(?:client_conn|db_client_connections|user_client_connections)/;

/** By message, where there is no code, or one that says nothing: what `pg` and PgBouncer tell apart by words alone. */
const BY_MESSAGE: readonly (readonly [RegExp, Explain])[] = [
  [
    /does not support SSL/,
    ({ address, sslmode }) =>
      `${address} speaks no TLS, which sslmode=${sslmode} asks for: turn it on there; sslmode=disable only where the network is trusted`,
  ],
  [/alert protocol version|unsupported protocol|wrong version number/, tooOld],
  [/alert certificate required|alert unknown ca/, wantsCertificate],
  [/client password must be/, lacksPassword],
  [/authentication failed|server signature/, refusesPassword],
  [TOO_MANY_CLIENTS, full],
  [/no such database/, noDatabase],
  [/server login has been failing|shutting down/, notReady],
  [/timeout expired|client_login_timeout/, silent],
  [/Connection terminated|disconnected before secure|error establishing an SSL/, cutOff],
];

const explain = (target: Target, said: Said): string => {
  const { code = '', message } = said;
  const found =
    BY_CODE[code] ?? (/^ERR_OSSL_/.test(code) ? noPem : BY_MESSAGE.find(([pattern]) => pattern.test(message))?.[1]);
  return found?.(target, said) ?? `there is no connection to ${target.address}`;
};

/** OpenSSL's `405DD3…:error:0A00042E:SSL routines:ssl3_read_bytes:tlsv1 alert protocol version:…`, of which one part speaks. */
const OPENSSL = /\S+:error:[^:]*:[^:]*:[^:]*:([^:]*):.*/s;

/** What was said; a refused connection to a name with several addresses says nothing by itself. */
const wordsOf = ({ message, errors }: Said): string =>
  errors?.map((each) => each.message).join('; ') ?? message.replace(OPENSSL, '$1');

/** Why no connection to a database URL could be made: what to do first, what was said after it. */
export const connectFailure = (error: Error, url: string): ConnectFailure =>
  new ConnectFailure(`${explain(targetOf(url), error)} (${wordsOf(error)})`, error);

/** Whether there were simply too many connections: at PostgreSQL, or at PgBouncer. */
export const isFull = ({ code, message }: ConnectFailure): boolean =>
  code === '53300' || TOO_MANY_CLIENTS.test(message);
