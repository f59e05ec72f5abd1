/** Where a watch of one project stands. */
export interface Cursor {
  readonly projectId: string;
  /** The last revision seen; absent: from now on. */
  readonly afterRevision?: bigint | undefined;
}

/** The place of the first project that a watch names twice; -1 when there is none. */
export const repeatedProject = (cursors: readonly Cursor[]): number => {
  const seen = new Set<string>();
  return cursors.findIndex(({ projectId }) => seen.size === seen.add(projectId).size);
};

/** How many changes of one project a poll brings to a watch that has nothing to catch up with. */
const IDLE_ROWS = 10;
const BEHIND_ROWS = 100;
/** Changes that one stream has waiting to be sent, over all its projects. */
const STREAM_ROWS = 2000;

/**
 * How many changes of a project one poll reads for a watch.
 * @param behind whether there were more the last time
 * @param projects how many projects the watch has
 */
export const rowsPerPoll = (behind: boolean, projects: number): number =>
  behind ? Math.max(IDLE_ROWS, Math.min(BEHIND_ROWS, Math.trunc(STREAM_ROWS / projects))) : IDLE_ROWS;
