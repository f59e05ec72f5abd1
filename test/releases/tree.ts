import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { latestVersion, number } from '../../src/migrator/files.ts';
import { CHANGES } from './next/source.ts';

const ROOT = join(import.meta.dirname, '../..');
const NEXT = join(import.meta.dirname, 'next');

/** The version that the releases after this one say they are. */
export const NEXT_VERSION = '999.0.0';

/** The number of one of the next release's migrations. */
export const nextNumber = (place: number): number => latestVersion() + place;

/**
 * The release after this one, in a folder of its own until the tests have ended: this one's files, changed.
 * @param migrations how many of the migrations in `next` it has
 * @returns its command
 */
export const useNextRelease = (migrations: number): string => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-next-'));
  after(() => rmSync(folder, { recursive: true }));
  for (const each of ['src', 'migrations', 'package.json'])
    cpSync(join(ROOT, each), join(folder, each), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const edit = (file: string, change: (text: string) => string) =>
    writeFileSync(join(folder, file), change(readFileSync(join(folder, file), 'utf8')));
  edit('package.json', (text) => JSON.stringify({ ...JSON.parse(text), version: NEXT_VERSION }));
  for (const { file, from, to } of CHANGES) edit(file, (text) => replacedOnce(text, from, to));
  for (const file of readdirSync(NEXT)) {
    const [, place, rest] = /^(\d)(\..+\.sql)$/.exec(file) ?? [];
    if (place === undefined || Number(place) > migrations) continue;
    const script = readFileSync(join(NEXT, file), 'utf8').replace(/\{(\d)\}/g, (_, at) =>
      number(nextNumber(Number(at))),
    );
    writeFileSync(join(folder, 'migrations', `${number(nextNumber(Number(place)))}${rest}`), script);
  }
  return join(folder, 'src/jeex-persistence.js');
};

const replacedOnce = (text: string, from: string, to: string): string => {
  const parts = text.split(from);
  if (parts.length !== 2) throw new Error(`"${from}" stands ${parts.length - 1} times where it should stand once`);
  return parts.join(to);
};
