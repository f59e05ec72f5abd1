import type { Client } from '@grpc/grpc-js';

/** How a call that failed is sent again: with the same request_id, after a random wait that grows up to a cap. */
export interface RetryPolicy {
  /** The longest first wait, and the longest of all, in milliseconds. */
  readonly firstMs: number;
  readonly mostMs: number;
  /** How long one operation is tried before its outcome stays unknown, in milliseconds. */
  readonly giveUpMs: number;
}

export interface CertifyOptions {
  /** A new channel to the service, for one caller or one watcher; the certification closes it. */
  readonly connect: () => Client;
  /** The bearer token of the next call, with every scope; null on a service without authentication. Asked before every call. */
  readonly token?: () => Promise<string | null>;
  /** Every random decision comes from it: the same seed makes the same schedule, as far as the answers are the same. */
  readonly seed: number;
  /** Callers at work at the same time, each on a channel of its own. */
  readonly callers: number;
  /** Scratch projects, made for the run and purged after it. */
  readonly projects: number;
  /** Watches, over the projects in turn; each is cut and resumed with its cursor every few seconds. */
  readonly watchers: number;
  /** The most calls a second, all callers together; 0: as fast as they go. */
  readonly rate?: number;
  readonly retry?: Partial<RetryPolicy>;
  /** Told of what takes long: lines for people. */
  readonly log?: (line: string) => void;
}

export const RETRY: RetryPolicy = { firstMs: 50, mostMs: 2_000, giveUpMs: 120_000 };
