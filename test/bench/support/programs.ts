import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Where programs are looked for. */
export const PATHS: readonly string[] = (process.env.PATH ?? '').split(delimiter);

/** The path of a program; null when it is not installed. */
export const programIn = (name: string, folders: readonly string[]): string | null =>
  folders.map((folder) => join(folder, name)).find(isExecutable) ?? null;

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};
