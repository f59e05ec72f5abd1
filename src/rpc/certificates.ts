import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { TlsConfig } from '../config.ts';

/** What a server shows and whom it trusts, in PEM. */
export interface Material {
  readonly cert: string;
  readonly key: string;
  /** The authorities of client certificates; null: none is asked for. */
  readonly clientCa: string | null;
}

/** The certificates of a material. */
export interface Certificates {
  /** The server's own, followed by its intermediates. */
  readonly chain: readonly [X509Certificate, ...X509Certificate[]];
  readonly authorities: readonly X509Certificate[];
}

const MAX_FILE_BYTES = 1024 * 1024;
const DAY_MS = 86_400_000;
/** An end that is nearer than so many days is one to see to. */
export const WARN_DAYS = 14;
const BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
/** One name of Node's `subjectAltName`, which writes what could be mistaken for several names as a JSON string. */
const NAME = /(?:^|, )([^:,"]+):("(?:[^"\\]|\\.)*"|[^",]*)/gy;

/** @throws Error naming the variable whose file cannot be read; never its value, which may be a key put there by mistake */
export const readMaterial = async (config: TlsConfig): Promise<Material> => ({
  cert: await readPem('TLS_CERT_FILE', config.certFile),
  key: await readPem('TLS_KEY_FILE', config.keyFile),
  clientCa: config.clientCaFile === null ? null : await readPem('TLS_CLIENT_CA_FILE', config.clientCaFile),
});

const readPem = async (variable: string, file: string): Promise<string> => {
  try {
    // A pipe could be read once only, and would keep the reader waiting for ever the second time.
    const found = await stat(file);
    if (!found.isFile() || found.size > MAX_FILE_BYTES) throw new Error('it is no regular file of 1 MiB at most');
    return await readFile(file, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Error(`${variable}: the file cannot be read: ${code ?? message}`);
  }
};

/** @throws Error naming the variable whose file does not hold what it should */
export const certificatesOf = ({ cert, key, clientCa }: Material): Certificates => {
  const chain = certificatesIn('TLS_CERT_FILE', cert);
  if (!chain[0].checkPrivateKey(privateKeyIn(key))) {
    throw new Error("TLS_KEY_FILE: the key is not that of TLS_CERT_FILE's first certificate");
  }
  return { chain, authorities: clientCa === null ? [] : certificatesIn('TLS_CLIENT_CA_FILE', clientCa) };
};

const certificatesIn = (variable: string, pem: string): [X509Certificate, ...X509Certificate[]] => {
  const [first, ...rest] = (pem.match(BLOCK) ?? []).map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw new Error(`${variable}: certificate ${index + 1} of the file is damaged`);
    }
  });
  if (!first) throw new Error(`${variable}: the file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)`);
  return [first, ...rest];
};

const privateKeyIn = (pem: string): KeyObject => {
  try {
    return createPrivateKey(pem);
  } catch {
    throw new Error('TLS_KEY_FILE: the file holds no private key in PEM, or one with a passphrase');
  }
};

/** Whole days until a certificate ends; below 0 it has. */
export const daysLeft = ({ validToDate }: X509Certificate): number =>
  Math.floor((validToDate.getTime() - Date.now()) / DAY_MS);

/** Tells one material from another without keeping the key. */
export const fingerprintOf = ({ cert, key, clientCa }: Material): string =>
  createHash('sha256')
    .update(JSON.stringify([cert, key, clientCa]))
    .digest('hex');

/**
 * The DNS and URI names of a certificate, as `DNS:name` (in lower case) and `URI:name`: what RFC 9525 lets identify a service. No
 * common name, and none at all of a certificate whose names cannot be read to the end.
 */
export const namesOf = ({ subjectAltName = '' }: X509Certificate): string[] => {
  const names: string[] = [];
  let read = 0;
  for (const [entry, kind, value = ''] of subjectAltName.matchAll(NAME)) {
    read += entry.length;
    const name = value.startsWith('"') ? String(JSON.parse(value)) : value;
    if (kind === 'DNS') names.push(`DNS:${name.toLowerCase()}`);
    if (kind === 'URI') names.push(`URI:${name}`);
  }
  return read === subjectAltName.length ? names : [];
};

/** A name of the configuration as `namesOf` writes it: only a URI has a colon. */
export const asName = (configured: string): string =>
  configured.includes(':') ? `URI:${configured}` : `DNS:${configured.toLowerCase()}`;
