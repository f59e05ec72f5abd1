import { clientsOn } from '../../support/service.ts';
import { type Fault, never, type World } from '../fault.ts';
import { openChannelTo, type Replica } from '../replica.ts';
import { append, newAppend, newScratch, type Scratch } from '../scratch.ts';
import { insist, isPassing } from '../waiting.ts';

const WRITERS = 8;
/** A watcher is killed after so many changes, at most. */
const MOST_CHANGES = 40;

/** What a watcher has seen of a project. */
interface Seen {
  readonly revisions: bigint[];
}

const cursorOf = ({ revisions }: Seen): bigint => revisions.at(-1) ?? 0n;

/**
 * Watches on a connection of its own from where the one before has ended, until it has seen enough, and cuts the connection.
 * @throws Error for a heartbeat that claims more than was sent
 */
const watch = async (
  { grpc }: Replica,
  { projectId, owner }: Scratch,
  { seen, enough, signal }: { seen: Seen; enough: () => boolean; signal: AbortSignal },
): Promise<void> => {
  const channel = openChannelTo([grpc]);
  const request = { projectId, afterRevision: cursorOf(seen) };
  try {
    for await (const { event } of clientsOn(channel).changes.watchProject(request, { actor: owner, signal })) {
      if (event.case === 'change') seen.revisions.push(event.value.revision);
      else if ((event.value?.revision ?? 0n) > cursorOf(seen)) {
        throw new Error(`a heartbeat says ${event.value?.revision}, and the last change sent was ${cursorOf(seen)}`);
      }
      if (enough()) return;
    }
  } catch (error) {
    if (!isPassing(error)) throw error;
  } finally {
    channel.close();
  }
};

/** Revisions that were not seen once, in order. */
const faultsOf = ({ revisions }: Seen, last: bigint): string[] => {
  const wrong = revisions.findIndex((revision, place) => revision !== BigInt(place + 1));
  if (wrong >= 0) return [`a watcher saw revision ${revisions[wrong]} where ${wrong + 1} was next`];
  return BigInt(revisions.length) === last ? [] : [`a watcher saw ${revisions.length} of ${last} changes`];
};

const revisionOf = async ({ clients, signal }: World, { projectId, owner }: Scratch): Promise<bigint> => {
  const { project } = await insist(signal, () => clients.projects.getProject({ id: projectId }, { actor: owner }));
  return project?.revision ?? 0n;
};

/** A watcher is killed and resumed from its last revision, while eight writers write. */
export const watcher: Fault = {
  name: 'watcher',
  what: 'a watcher killed and resumed, with eight writers',
  batch: 20,
  missing: never,
  strike: async (world, random, times) => {
    const { replicas, clients, signal } = world;
    const scratch = await newScratch(world);
    const seen: Seen = { revisions: [] };
    let going = true;
    const write = async () => {
      while (going) {
        const request = newAppend(scratch);
        await insist(signal, () => append(clients, scratch, request));
      }
    };
    const watchAndDie = async () => {
      for (let time = 0; time < times; time += 1) {
        const goal = seen.revisions.length + 1 + random.below(MOST_CHANGES);
        const replica = random.pick(replicas);
        const enough = () => seen.revisions.length >= goal;
        while (!enough()) await watch(replica, scratch, { seen, enough, signal });
      }
    };
    const watching = watchAndDie().finally(() => {
      going = false;
    });
    await Promise.all([watching, ...Array.from({ length: WRITERS }, write)]);
    const last = await revisionOf(world, scratch);
    const enough = () => cursorOf(seen) >= last;
    while (!enough()) await watch(random.pick(replicas), scratch, { seen, enough, signal });
    return { times, figures: { 'changes seen': [seen.revisions.length] }, broken: faultsOf(seen, last) };
  },
};
