/** A rule that migrations break which were released before it, and whose files therefore stay as they are. */
export interface ReleasedException {
  readonly from: number;
  readonly to: number;
  readonly rules: readonly string[];
  readonly reason: string;
}

export const RELEASED: readonly ReleasedException[] = [
  {
    from: 1,
    to: 9,
    rules: ['dynamic-sql', 'prefer-bigint-over-int', 'require-concurrent-index-creation', 'walls'],
    reason:
      'the first release: it makes its tables itself, and finds no row and no older release; jeex_system, whose functions ' +
      'cross projects, reads who is a member of which',
  },
  {
    from: 10,
    to: 13,
    rules: [
      'backward-incompatible',
      'constraint-missing-not-valid',
      'data-dependent',
      'dynamic-sql',
      'prefer-bigint-over-int',
    ],
    reason: 'the second release: its upgrade stops the service first, and 011 leaves unvalidated what rows do not fit',
  },
];

export const isReleasedException = (version: number, rule: string): boolean =>
  RELEASED.some(({ from, to, rules }) => from <= version && version <= to && rules.includes(rule));
