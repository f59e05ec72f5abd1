import type { Signer } from '../audit/isolation/tokens.ts';
import { readKey } from '../auth/development.ts';
import type { ChannelOptions } from './channel.ts';
import { readConfig } from './token.ts';

/** How a running service lets a command in; all of it absent on one without authentication and TLS. */
export interface RemoteOptions extends ChannelOptions {
  /** A file with the private key (JWK) that signs the command's tokens. */
  readonly key?: string;
}

/** What tokens are signed with, for the service that AUTH_ISSUER and AUTH_AUDIENCE name; null without a key. */
export const signerOf = ({ key }: RemoteOptions): Signer | null => {
  if (key === undefined) return null;
  const { issuer, audience } = readConfig().auth;
  return { key: readKey(key), issuer, audience: audience[0] ?? '' };
};
