import { readFileSync } from 'node:fs';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';

/** The files in PEM by which a service with TLS is reached; all of them absent on one without. */
export interface ChannelOptions {
  /** Who signed the service's certificate; the command's own certificate and its key. */
  readonly ca?: string;
  readonly cert?: string;
  readonly certKey?: string;
}

const readPem = (path: string | undefined): Buffer | null => (path === undefined ? null : readFileSync(path));

/** TLS where a file for it is named. @throws Error when one cannot be read */
export const channelCredentials = ({ ca, cert, certKey }: ChannelOptions): ChannelCredentials =>
  ca === undefined && cert === undefined
    ? credentials.createInsecure()
    : credentials.createSsl(readPem(ca), readPem(certKey), readPem(cert));
