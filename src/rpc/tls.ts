import { constants, type X509Certificate } from 'node:crypto';
import { setInterval } from 'node:timers/promises';
import { createSecureContext, type Server, type TLSSocket, type TlsOptions } from 'node:tls';
import type { TlsConfig } from '../config.ts';
import type { Logger } from '../log.ts';
import {
  asName,
  type Certificates,
  certificatesOf,
  daysLeft,
  fingerprintOf,
  type Material,
  namesOf,
  readMaterial,
  WARN_DAYS,
} from './certificates.ts';

const LOOK_EVERY_MS = 5000;
const HANDSHAKE_MS = 10_000;
const DAY_MS = 86_400_000;
/** What of a stranger's names is logged. */
const MAX_NAMES = 5;
const MAX_NAME_LENGTH = 100;

/** TLS 1.3 with the certificate that is on disk, for any number of servers. */
export interface Tls {
  /** What a server starts with. */
  options(): TlsOptions;
  /** Keeps a server's certificate up to date, and closes connections of clients whose certificate has no name on the list. */
  protect(server: Server): void;
  /** Stops looking at the files. */
  close(): void;
}

/**
 * Reads the files and looks at them again every few seconds: the content itself, because a Kubernetes secret is replaced by
 * renaming a directory above it, which file watchers miss. A change counts once it is seen twice, so that a half-written one is
 * not taken; one that does not fit together leaves what is in use.
 * @param everyMs how often to look, in milliseconds
 * @throws Error naming the variable whose file cannot be used, and why
 */
export const openTls = async (config: TlsConfig, log: Logger, everyMs = LOOK_EVERY_MS): Promise<Tls> => {
  const servers = new Set<Server>();
  const allowed = new Set(config.clientNames.map(asName));
  let used = await load(config);
  tell(log, used.certificates, 'TLS certificate in use');
  let toldAt = Date.now();
  let seen = used.fingerprint;
  let acted = seen;

  const look = async (): Promise<void> => {
    const found = await load(config).catch((error: Error) => error);
    const state = found instanceof Error ? found.message : found.fingerprint;
    const settled = state === seen;
    seen = state;
    if (settled && state !== acted) {
      acted = state;
      if (found instanceof Error) log.error({ err: found }, 'the TLS files cannot be used; what was read before stays');
      else adopt(found);
    }
    if (Date.now() - toldAt < DAY_MS) return;
    toldAt = Date.now();
    warnOfEnds(log, used.certificates);
  };

  const adopt = (found: Loaded): void => {
    used = found;
    for (const server of servers) server.setSecureContext(found.options);
    tell(log, found.certificates, 'TLS certificate replaced');
  };

  const closing = new AbortController();
  const watch = async (): Promise<void> => {
    for await (const _ of setInterval(everyMs, undefined, { ref: false, signal: closing.signal })) await look();
  };
  watch().catch((error: Error) => {
    if (!closing.signal.aborted) log.error({ err: error }, 'the TLS files are no longer looked at');
  });

  return {
    options: () => used.options,
    protect: (server) => {
      servers.add(server);
      server.once('close', () => servers.delete(server));
      // Before an HTTPS server closes the socket, which then no longer knows its peer.
      server.prependListener('tlsClientError', (error, socket) => refuseHandshake(log, error, socket));
      if (config.clientCaFile === null) return;
      // Before the server's own listener, which then finds the connection closed.
      server.prependListener('secureConnection', (socket) => admit(log, socket, allowed));
    },
    close: () => closing.abort(),
  };
};

interface Loaded {
  readonly fingerprint: string;
  readonly certificates: Certificates;
  readonly options: TlsOptions;
}

const load = async (config: TlsConfig): Promise<Loaded> => {
  const material = await readMaterial(config);
  const certificates = certificatesOf(material);
  const options = optionsOf(material);
  try {
    createSecureContext(options);
  } catch (cause) {
    throw new Error('TLS_CERT_FILE, TLS_KEY_FILE: OpenSSL refuses them for TLS 1.3', { cause });
  }
  return { fingerprint: fingerprintOf(material), certificates, options };
};

const optionsOf = ({ cert, key, clientCa }: Material): TlsOptions => ({
  cert,
  key,
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  handshakeTimeout: HANDSHAKE_MS,
  // A resumed session would not show its certificate again, which may have ended or be of an authority that is gone.
  secureOptions: constants.SSL_OP_NO_TICKET,
  ...(clientCa !== null && { ca: clientCa, requestCert: true, rejectUnauthorized: true }),
});

/** Closes a connection whose certificate, checked against the authorities by the handshake, has no name on the list. */
const admit = (log: Logger, socket: TLSSocket, allowed: ReadonlySet<string>): void => {
  const certificate = socket.getPeerX509Certificate();
  if (certificate && socket.authorized && namesOf(certificate).some((name) => allowed.has(name))) return;
  log.warn(
    { ...(certificate && described(certificate)), address: socket.remoteAddress },
    'refused a client: its certificate has no name that is in TLS_CLIENT_NAMES',
  );
  socket.destroy();
};

/** What a log line says of a certificate, which may be a stranger's; its other names may be people's. */
const described = (certificate: X509Certificate) => ({
  names: namesOf(certificate)
    .slice(0, MAX_NAMES)
    .map((name) => name.slice(0, MAX_NAME_LENGTH).replace(/[^!-~]/g, '?')),
  serialNumber: certificate.serialNumber.slice(0, MAX_NAME_LENGTH),
  ends: certificate.validToDate,
});

/** An operator should see who came without a good certificate; what else fails are port scans and probes. */
const refuseHandshake = (log: Logger, error: NodeJS.ErrnoException, socket: TLSSocket): void => {
  const reason = String(socket.authorizationError ?? error.code);
  const ofCertificate = socket.authorizationError || reason === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE';
  log[ofCertificate ? 'warn' : 'debug']({ reason, address: socket.remoteAddress }, 'refused a TLS handshake');
  socket.destroy();
};

const tell = (log: Logger, certificates: Certificates, message: string): void => {
  log.info(described(certificates.chain[0]), message);
  warnOfEnds(log, certificates);
};

const warnOfEnds = (log: Logger, { chain, authorities }: Certificates): void => {
  warnOfEnd(log, 'TLS_CERT_FILE', chain);
  warnOfEnd(log, 'TLS_CLIENT_CA_FILE', authorities);
};

const warnOfEnd = (log: Logger, variable: string, certificates: readonly X509Certificate[]): void => {
  for (const certificate of certificates) {
    const days = daysLeft(certificate);
    if (days >= WARN_DAYS) continue;
    const what = days < 0 ? 'has ended' : 'ends soon';
    log.warn({ ...described(certificate), days }, `${variable}: a certificate ${what}`);
  }
};
