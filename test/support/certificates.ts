import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { generate } from 'selfsigned';

/** A certificate and its key, in PEM. */
export interface Issued {
  readonly cert: string;
  readonly key: string;
}

interface Subject {
  readonly commonName?: string;
  readonly dns?: readonly string[];
  readonly uris?: readonly string[];
  readonly usage?: 'server' | 'client';
  /** Days from now. */
  readonly from?: number;
  readonly to?: number;
}

export interface Authority {
  /** In PEM. */
  readonly cert: string;
  issue(subject: Subject): Promise<Issued>;
}

const DNS = 2;
const URI = 6;
const IP = 7;
const KEYS = { keyType: 'ec', algorithm: 'sha256' } as const;

const daysFromNow = (days: number): Date => new Date(Date.now() + days * 86_400_000);
const named = (commonName: string) => [{ name: 'commonName', value: commonName }];

/** An authority of certificates for 127.0.0.1 and for clients. */
export const createAuthority = async (name: string): Promise<Authority> => {
  const ca = await generate(named(name), {
    ...KEYS,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, critical: true },
    ],
  });
  return {
    cert: ca.cert,
    issue: async ({ commonName = 'nobody', dns = [], uris = [], usage = 'client', from = -1, to = 90 }) => {
      const names = [
        ...dns.map((value) => ({ type: DNS, value }) as const),
        ...uris.map((value) => ({ type: URI, value }) as const),
        ...(usage === 'server' ? [{ type: IP, ip: '127.0.0.1' } as const] : []),
      ];
      const issued = await generate(named(commonName), {
        ...KEYS,
        ca: { key: ca.private, cert: ca.cert },
        notBeforeDate: daysFromNow(from),
        notAfterDate: daysFromNow(to),
        extensions: [
          { name: 'extKeyUsage', serverAuth: usage === 'server', clientAuth: usage === 'client' },
          ...(names.length > 0 ? [{ name: 'subjectAltName', altNames: names } as const] : []),
        ],
      });
      return { cert: issued.cert, key: issued.private };
    },
  };
};

/** A directory with files as Kubernetes mounts a secret: all are replaced at once, by a symbolic link above them. */
export const useSecret = async (files: Readonly<Record<string, string>>) => {
  const home = await mkdtemp(join(tmpdir(), 'jeex-secret-'));
  after(() => rm(home, { recursive: true, force: true }));
  let version = 0;
  const replace = async (content: Readonly<Record<string, string>>): Promise<void> => {
    version += 1;
    const directory = `..${version}`;
    await mkdir(join(home, directory));
    for (const [name, text] of Object.entries(content)) await writeFile(join(home, directory, name), text);
    await symlink(directory, join(home, '..next'));
    await rename(join(home, '..next'), join(home, '..data'));
  };
  await replace(files);
  for (const name of Object.keys(files)) await symlink(join('..data', name), join(home, name));
  return { pathOf: (name: string): string => join(home, name), replace };
};
