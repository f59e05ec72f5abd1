// Runs a prepared statement again and again by pg, on several connections.

import { Client } from 'pg';
import { answerParent } from './worker.ts';

export interface LoopQuestion {
  readonly url: string;
  /** Connections. */
  readonly clients: number;
  readonly seconds: number;
  /** With `$1`, `$2`, … for its parameters. */
  readonly text: string;
  /** In their order. */
  readonly values: readonly string[];
}

export interface Looped {
  readonly calls: number;
  readonly seconds: number;
}

answerParent<LoopQuestion, Looped>(async ({ url, clients, seconds, text, values }) => {
  const connections = Array.from({ length: clients }, () => new Client({ connectionString: url }));
  await Promise.all(connections.map((client) => client.connect()));
  const began = performance.now();
  let calls = 0;
  const loop = async (client: Client) => {
    while (performance.now() - began < seconds * 1000) {
      await client.query({ name: 'looped', text, values: [...values] });
      calls += 1;
    }
  };
  await Promise.all(connections.map(loop));
  const took = (performance.now() - began) / 1000;
  await Promise.all(connections.map((client) => client.end()));
  return { calls, seconds: took };
});
