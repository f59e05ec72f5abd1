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
}

/** An applied migration that the release does not have as it was applied. */
export interface Mismatch {
  readonly version: number;
  readonly name: string;
  readonly applied: string;
  /** Null when the release does not have the migration at all. */
  readonly file: string | null;
}

/** What is still to be applied, and what was applied otherwise than the release has it. */
export const compareMigrations = (
  files: readonly MigrationFile[],
  applied: readonly AppliedMigration[],
): { pending: MigrationFile[]; mismatches: Mismatch[] } => {
  const known = new Map(files.map((file) => [file.version, file]));
  const done = new Set(applied.map(({ version }) => version));
  return {
    pending: files.filter(({ version }) => !done.has(version)),
    mismatches: applied.flatMap(({ version, name, checksum }) => {
      const file = known.get(version)?.checksum ?? null;
      return file === checksum ? [] : [{ version, name, applied: checksum, file }];
    }),
  };
};

/** The share of reads that PostgreSQL's own cache answered, 0 to 1; null before the first read. */
export const hitRatio = (hits: bigint, reads: bigint): number | null =>
  hits + reads === 0n ? null : Number(hits) / Number(hits + reads);
