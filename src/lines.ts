/**
 * Writes the lines of checks: the name of a group above its first one, how each ended in a column before it, and below it what is
 * to be told besides.
 */
export const tellLines = (print: (line: string) => void) => {
  let last = '';
  return (group: string, mark: string, line: string, besides: readonly string[]): void => {
    if (group !== last) print(`\n${group}`);
    last = group;
    print(`  ${mark.padEnd(4)}  ${line}`);
    for (const more of besides) print(`          ${more}`);
  };
};
