/** Something that keeps migrations from running. */
export interface Problem {
  readonly code:
    | 'NAME'
    | 'EMPTY'
    | 'GAP'
    | 'DOUBLED'
    | 'NO_UNDO'
    | 'NO_DO'
    | 'DIRECTIVE'
    | 'CHECKSUM'
    | 'OTHER'
    | 'LATE'
    | 'GONE'
    | 'AHEAD'
    | 'BEHIND'
    | 'TARGET'
    | 'POOLED'
    | 'BACKUP'
    | 'OWNER'
    | 'UNFINISHED'
    | 'DRIFT';
  /** What is wrong. */
  readonly what: string;
  /** What to do about it. */
  readonly advice: string;
}

/** A problem on a line of its own and its advice below it. */
export const describeProblem = ({ what, advice }: Problem): string => `${what}\n    ${advice}`;

/** Nothing was done, and why: what was asked for cannot or should not be done to this database. */
export class MigrationRefused extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(
      `refused, and nothing was changed:\n${problems.map((problem) => `  ${describeProblem(problem)}`).join('\n')}`,
    );
    this.name = 'MigrationRefused';
    this.problems = problems;
  }
}

/** A migration failed, and nothing of it is left; the ones before it stay. */
export class MigrationFailed extends Error {
  override readonly name = 'MigrationFailed';
}

/** query_canceled, by SQLSTATE: somebody told the statement to stop. */
export const CANCELLED = '57014';

/** @throws MigrationRefused when there is a problem */
export function refuse(problems: readonly Problem[]): void {
  if (problems.length > 0) throw new MigrationRefused(problems);
}

/** A script has ended the transaction that it ran in, so that nothing can roll back what stood before. */
export class TransactionEnded extends Error {
  constructor() {
    super('it must leave the transaction alone');
  }
}
