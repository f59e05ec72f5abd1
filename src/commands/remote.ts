import { readFileSync } from 'node:fs';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import type { Signer } from '../audit/isolation/tokens.ts';
import { readKey } from '../auth/development.ts';
import { readConfig } from './token.ts';

/** How a running service lets a command in; all of it absent on one without authentication and TLS. */
export interface RemoteOptions {
  /** A file with the private key (JWK) that signs the command's tokens. */
  readonly key?: string;
  /** Files in PEM: who signed the service's certificate; the command's own certificate and its key. */
  readonly ca?: string;
  readonly cert?: string;
  readonly certKey?: string;
}

const readPem = (path: string | undefined): Buffer | null => (path === undefined ? null : readFileSync(path));

/** TLS where a file for it is named. @throws Error when one cannot be read */
export const channelCredentials = ({ ca, cert, certKey }: RemoteOptions): ChannelCredentials =>
  ca === undefined && cert === undefined
    ? credentials.createInsecure()
    : credentials.createSsl(readPem(ca), readPem(certKey), readPem(cert));

/** What tokens are signed with, for the service that AUTH_ISSUER and AUTH_AUDIENCE name; null without a key. */
export const signerOf = ({ key }: RemoteOptions): Signer | null => {
  if (key === undefined) return null;
  const { issuer, audience } = readConfig().auth;
  return { key: readKey(key), issuer, audience: audience[0] ?? '' };
};
