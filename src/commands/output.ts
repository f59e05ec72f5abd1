import { pipeline } from 'node:stream/promises';

/** Writes a line of the result to standard output. */
export const print = (line: string): void => void process.stdout.write(`${line}\n`);

/** Writes a line for people to standard error: progress, notes. */
export const tell = (line: string): void => void process.stderr.write(`${line}\n`);

/** Writes a long result to standard output as it comes, no faster than it is read; a reader may stop (`| head`). */
export async function writeOut(chunks: AsyncIterable<string>, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(chunks, process.stdout, { end: false, signal });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  }
}
