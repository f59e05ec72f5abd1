import { latestVersion } from '../migrator/files.ts';
import { oldestRelease } from '../migrator/history.ts';

/** A migration as the release has it. */
export interface MigrationFile {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
}

/** A migration as the database has it. */
export interface AppliedMigration extends MigrationFile {
  /** Microseconds since 1970. */
  readonly time: bigint;
  /** The newest migration that the oldest release able to serve the schema knows; null: as before this one. */
  readonly oldestRelease: number | null;
}

/** An applied migration that the release does not have as it was applied. */
export interface Mismatch {
  readonly version: number;
  readonly name: string;
  readonly applied: string;
  /** Null when the release does not have the migration at all. */
  readonly file: string | null;
}

/**
 * What is still to be applied, and what was applied otherwise than the release has it. Those of a later release are no
 * mismatch as long as this one can serve the schema.
 * @returns `oldest`: the newest migration that a release must know to serve the schema; 0: any can
 */
export const compareMigrations = (
  files: readonly MigrationFile[],
  applied: readonly AppliedMigration[],
): { pending: MigrationFile[]; mismatches: Mismatch[]; oldest: number } => {
  const known = new Map(files.map((file) => [file.version, file]));
  const latest = latestVersion(files);
  const oldest = oldestRelease(applied);
  const done = new Set(applied.map(({ version }) => version));
  return {
    oldest,
    pending: files.filter(({ version }) => !done.has(version)),
    mismatches: applied.flatMap(({ version, name, checksum }) => {
      if (version > latest && oldest <= latest) return [];
      const file = known.get(version)?.checksum ?? null;
      return file === checksum ? [] : [{ version, name, applied: checksum, file }];
    }),
  };
};
