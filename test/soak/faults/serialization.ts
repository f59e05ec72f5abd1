import { type Fault, never } from '../fault.ts';
import { append, compare, contentsOf, newAppend, newScratch } from '../scratch.ts';
import { insist } from '../waiting.ts';

const SENDERS = 4;

/** A sequence keeps its count when what raised it is rolled back. */
const PREPARE = `
create schema soak;
create sequence soak.forced;
create function soak.refuse() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
begin
  if random() < 0.3 then
    perform nextval('soak.forced');
    raise exception 'forced' using errcode = 'serialization_failure';
  end if;
  return new;
end $$;
create trigger zz_soak before insert on jeex.changes for each row execute function soak.refuse();`;
const REMOVE = 'drop trigger zz_soak on jeex.changes; drop schema soak cascade;';
const FORCED = 'select case when is_called then last_value else 0 end::integer as many from soak.forced';

/** Any write, of anybody, fails with a serialization failure three times in ten. */
export const serialization: Fault = {
  name: 'serialization',
  what: 'a write ended with a serialization failure',
  batch: 50,
  missing: never,
  strike: async (world, _random, times) => {
    const { cluster, clients, signal } = world;
    const scratch = await newScratch(world);
    const told = new Map<number, string>();
    const forced = async () => (await cluster.ask<{ many: number }>(FORCED))[0]?.many ?? 0;
    const sender = async () => {
      // Once in any case: the load may have met all of them before.
      do {
        const request = newAppend(scratch);
        told.set(await insist(signal, () => append(clients, scratch, request)), request.content);
      } while ((await forced()) < times);
    };
    await cluster.ask(PREPARE);
    let struck = 0;
    try {
      await Promise.all(Array.from({ length: SENDERS }, sender));
      struck = await forced();
    } finally {
      await cluster.ask(REMOVE);
    }
    return { times: struck, broken: compare(await contentsOf(world, scratch), told) };
  },
};
