/** A figure at a moment. */
export interface Point {
  /** Milliseconds, from any moment on. */
  readonly at: number;
  readonly value: number;
}

const HOUR_MS = 3_600_000;

/** The least of each stretch of time: what is left of a saw-tooth. @param stretchMs milliseconds */
export const floors = (points: readonly Point[], stretchMs: number): Point[] => {
  const stretches = Map.groupBy(points, ({ at }) => Math.floor(at / stretchMs));
  return [...stretches.values()].map((inside) =>
    inside.reduce((least, point) => (point.value < least.value ? point : least)),
  );
};

/** How much points rise in an hour, in percent of their mean, by least squares; null for fewer than three of them. */
export const percentPerHour = (points: readonly Point[]): number | null => {
  if (points.length < 3) return null;
  const mean = (of: (point: Point) => number) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [at, value] = [mean((point) => point.at), mean((point) => point.value)];
  const spread = mean((point) => (point.at - at) ** 2);
  if (spread === 0 || value === 0) return null;
  const perMs = mean((point) => (point.at - at) * (point.value - value)) / spread;
  return (100 * perMs * HOUR_MS) / value;
};
