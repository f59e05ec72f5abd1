import { setTimeout as sleep } from 'node:timers/promises';
import { residentMib } from '../support/cpu.ts';
import { makeProjects } from '../support/projects.ts';
import type { Figure, Scenario } from '../support/scenario.ts';
import { openWatchers, type Watchers } from '../support/watchers.ts';

const STREAMS = 10_000;
const PROJECTS = 1_000;
/** How many one actor may have. */
const EACH = 5_000;
const MOST_MIB = 400;
/** Until every stream has heard again that there is nothing: a heartbeat comes every 10 s at the latest. */
const IDLE_MS = 15_000;
/** The nursery that the image sets, and the heap that Node takes in a container of 512 MB. */
const CONTAINED = { NODE_OPTIONS: '--max-semi-space-size=32 --max-old-space-size=256' };

export const idleWatchers: Scenario = {
  name: 'idle-watchers',
  about: `resident memory of the service with ${STREAMS} idle watch streams, with the heap of a container of 512 MB`,
  run: async (bench) => {
    const { world, signal } = bench;
    const projects = await makeProjects(world.database.admin, world.actor, PROJECTS, 1);
    const target = await bench.start({ name: 'service', env: CONTAINED });
    const before = residentMib(target.pid);
    const { 'x-actor-id': _, ...system } = target.headers;
    const watched = Array.from({ length: EACH }, (_, i) => projects[i % projects.length] as string);
    bench.tell(`opening ${STREAMS} streams`);
    // One actor and the system, since neither may have as many.
    const watching: Watchers[] = [];
    for (const headers of [target.headers, system]) {
      const opened = await openWatchers({ ...target, headers }, watched, signal);
      bench.opened.defer(opened.stop);
      watching.push(opened);
    }
    await sleep(IDLE_MS, undefined, { signal });
    const after = residentMib(target.pid);
    for (const each of watching) await each.arrived();
    const mib = (name: string, value: number, bound: Figure['bound']): Figure => ({
      name,
      value,
      spread: null,
      unit: 'MiB',
      bound,
    });
    return {
      figures: [
        mib(`resident memory of the service, ${STREAMS} idle watch streams`, after, { most: MOST_MIB }),
        mib('resident memory of the service without', before, null),
      ],
      measured: [],
    };
  },
};
