const INTERVAL_MS = 2_000;

/** Says, each time it is asked, whether a long work should tell again how far it is. */
export const everyTwoSeconds = (): (() => boolean) => {
  let toldAt = performance.now();
  return () => {
    const due = performance.now() - toldAt >= INTERVAL_MS;
    if (due) toldAt = performance.now();
    return due;
  };
};
