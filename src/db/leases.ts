import type { DatabasePool, DatabasePoolConnection } from 'slonik';

/** Slonik's connections, each of which is taken once and kept. */
export interface Leases {
  /** Runs work on one that nobody uses; at most as many at a time as the pool has. */
  run<T>(work: (connection: DatabasePoolConnection) => Promise<T>): Promise<T>;
  /** Gives all back. */
  end(): void;
}

/**
 * Keeps what Slonik has to do to hand out a connection, and to take it back, from being done for each statement: that was
 * as much work as the rest of Slonik. Its connections stand for places alone (see `createDriver`), so nothing else is held.
 */
export const createLeases = (pool: DatabasePool): Leases => {
  const idle: DatabasePoolConnection[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const take = () =>
    new Promise<DatabasePoolConnection>((resolve, reject) => {
      const hold = async (connection: DatabasePoolConnection) => {
        resolve(connection);
        await ended;
      };
      pool.connect(hold).catch(reject);
    });
  return {
    run: async (work) => {
      const connection = idle.pop() ?? (await take());
      try {
        return await work(connection);
      } finally {
        idle.push(connection);
      }
    },
    end,
  };
};
