import { randomBytes } from 'node:crypto';
import { allOf, interleave, ratioOf } from '../support/compare.ts';
import type { ExportQuestion, Streamed } from '../support/export-worker.ts';
import { type Bench, ratio, type Scenario } from '../support/scenario.ts';
import { startWorker } from '../support/worker.ts';
import { getProject } from '../support/works.ts';
import { callTarget, type Target } from '../support/world.ts';

const STREAMS = 4;
const DOCUMENTS = 16;
/** Of each document, which does not compress. */
const DOCUMENT_BYTES = 2 * 1024 * 1024;
/** GetProject, a second. */
const RATE = 200;
const CALLERS = 64;
const MOST = 2;
const ALONE = 'alone';
const WHILE = `while ${STREAMS} exports stream`;

/** An export of large documents in each of some projects. */
const makeExports = (bench: Bench, target: Target) =>
  callTarget(target, async ({ documents, exports }) => {
    const made: { projectId: string; id: string }[] = [];
    for (const projectId of bench.world.projects.slice(0, STREAMS)) {
      const documentTypes = Array.from({ length: DOCUMENTS }, (_, i) => `exported-${i}`);
      for (const documentType of documentTypes) {
        const content = randomBytes((DOCUMENT_BYTES / 4) * 3).toString('base64');
        await documents.appendVersion({ projectId, documentType, content });
      }
      const { export: own } = await exports.createExport({ projectId, documentTypes });
      made.push({ projectId, id: own?.id ?? '' });
    }
    return made;
  });

export const exports: Scenario = {
  name: 'exports',
  about: `p99 of GetProject while ${STREAMS} exports of ${(DOCUMENTS * DOCUMENT_BYTES) >> 20} MiB stream, against alone`,
  run: async (bench) => {
    const { world, signal } = bench;
    const target = await bench.start({ name: 'service' });
    bench.tell('making the exports');
    const made = await makeExports(bench, target);
    const work = getProject(world.projects);
    const size = { callers: CALLERS, seconds: 2 * bench.seconds, rate: RATE };
    const worker = await startWorker<ExportQuestion, Streamed>(
      new URL('../support/export-worker.ts', import.meta.url),
      signal,
    );
    bench.opened.defer(worker.stop);
    let mib = 0;
    let seconds = 0;
    await bench.measure(target, work, size);
    const rounds = await interleave([ALONE, WHILE], bench.rounds, async (name) => {
      if (name === ALONE) return { ...(await bench.measure(target, work, size)), target: name };
      const before = await worker.ask({ address: target.address, headers: target.headers, exports: made });
      const began = performance.now();
      const measured = await bench.measure(target, work, size);
      mib += ((await worker.ask('stop')) - before) / 2 ** 20;
      seconds += (performance.now() - began) / 1000;
      return { ...measured, target: name };
    });
    const spread = ratioOf(rounds, WHILE, ALONE, ({ latency: { p99 } }) => p99);
    return {
      figures: [
        ratio(`GetProject at ${RATE} calls a second: p99 ${WHILE} against alone`, spread, { most: MOST }),
        { name: 'streamed meanwhile', value: mib / seconds, spread: null, unit: 'MiB/s', bound: null },
      ],
      measured: allOf(rounds),
    };
  },
};
