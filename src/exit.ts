/** What a command answers to the shell. */
export const EXIT = { done: 0, failed: 1, wrongUse: 2, refused: 3 } as const;
