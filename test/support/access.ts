import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { constants, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import {
  type AccessLog,
  type AccessLogOptions,
  type AccessRecord,
  createAccessLog,
} from '../../src/audit/access-log.ts';
import { createLog } from '../../src/log.ts';
import type { Caller } from '../../src/rpc/access.ts';

/** Puts nothing on record. */
export const NO_ACCESS_LOG: AccessLog = { admit: () => {}, record: () => {}, close: async () => {} };

/** A line of the access log. */
export type Line = Readonly<Record<string, unknown>>;

export const parseLines = (text: string): Line[] =>
  text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));

/** A folder that is gone after the tests. */
export const useFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'jeex-access-'));
  after(() => rm(folder, { recursive: true }));
  return folder;
};

export const makePipe = (path: string): void => {
  execFileSync('/bin/sh', ['-c', 'mkfifo "$0"', path]);
};

const openToRead = (path: string): number => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);

/** A pipe with a reader that reads nothing until it is told. */
export const usePipe = (folder: string) => {
  const path = join(folder, randomUUID());
  makePipe(path);
  const fd = openToRead(path);
  let text = '';
  let reader: Socket | undefined;
  const readOn = () => {
    // A socket, since a file's stream would block a thread in a read that nothing may end.
    reader = new Socket({ fd: openToRead(path), writable: false }).on('data', (chunk) => {
      text += chunk;
    });
  };
  after(() => reader?.destroy());
  return { path, fd, readOn, lines: () => parseLines(text.slice(0, text.lastIndexOf('\n') + 1)) };
};

/** An access log in a file of its own. */
export const useAccessLog = async (options: Partial<AccessLogOptions> = {}) => {
  const place = { to: join(await useFolder(), 'access.log'), own: false };
  const accessLog = await createAccessLog({ place, reads: 'all', full: 'drop', ...options }, createLog('silent'));
  return { accessLog, text: () => readFile(place.to, 'utf8') };
};

/** An access log that keeps its records in memory. */
export const keepRecords = (): { accessLog: AccessLog; records: AccessRecord[] } => {
  const records: AccessRecord[] = [];
  return { records, accessLog: { ...NO_ACCESS_LOG, record: (record) => records.push(record) } };
};

export const PROJECT = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
export const USER = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f91';

/** A read that was answered, unless it says otherwise. */
export const newRecord = (fields: Partial<AccessRecord> = {}): AccessRecord => ({
  rpc: 'jeex.persistence.v1.DocumentService/GetVersion',
  read: true,
  caller: 'orchestrator',
  actor: USER,
  projects: [PROJECT],
  users: [],
  result: 'OK',
  correlationId: randomUUID(),
  admitted: true,
  durationMs: 1.5,
  ...fields,
});

/** A caller with some scopes, whose token narrows nothing and does not end. */
export const callerWith = (name: string, scopes: readonly string[] = []): Caller => ({
  name,
  scopes: new Set(scopes),
  actors: null,
  projects: null,
  expires: null,
});
