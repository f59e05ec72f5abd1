import type { Action, FactBase } from '@supabase/pg-delta';
import type { Client } from 'pg';
import { planBetween, readFacts } from './compare.ts';
import { readDetails, settleDetails } from './details.ts';
import { refuseHazards } from './hazards.ts';
import type { Libraries } from './libraries.ts';
import { type Renaming, renamedIndexes, unhinted } from './renames.ts';
import { asOwner, takenBack } from './rights.ts';
import { type Effects, NO_EFFECTS, runAll, takeStep } from './run.ts';
import { connected, type Scratch, type ScratchDatabase } from './scratch.ts';
import { concurrently, divide, plain, type Statement, type Step } from './steps.ts';
import { summarise } from './summary.ts';
import type { Wording, Writer } from './write.ts';

/** A migration before it has a number: its statements both ways, without semicolons. */
export interface Draft {
  readonly run: Step['run'];
  readonly statements: readonly string[];
  readonly undo: readonly string[];
  readonly effects: Effects;
  readonly undoEffects: Effects;
  /** What it does, in words. */
  readonly summary: readonly string[];
  /** What its author may have meant otherwise. */
  readonly doubts: readonly string[];
}

/** What it takes to build migrations. */
export interface Workshop {
  readonly scratch: Scratch;
  readonly libraries: Libraries;
  readonly writer: Writer;
}

/** A database that nobody changes any more, and what is in it. */
export interface Place {
  readonly database: ScratchDatabase;
  readonly facts: FactBase;
}

/**
 * Builds the migrations that lead from what a database has to a schema, each with the way back from where it has led.
 * @param renamings what to begin with
 * @param word how a statement of the way there is worded
 * @throws Hazard where they would lose or break something that a person keeps; Error where PostgreSQL does not take the
 *   statements, or there is no order for them
 */
export async function build(
  start: Place,
  goal: Place,
  renamings: readonly Renaming[],
  word: Wording,
  workshop: Workshop,
): Promise<Draft[]> {
  const renames = forwards(renamings);
  const renamed = await after(start, renames, workshop);
  const { first, actions, place } = await lead(renamed, goal.facts, workshop);
  const ends = { from: place.facts, to: goal.facts };
  refuseHazards(actions, ends);
  const details = {
    from: await connected(place.database.url, readDetails),
    to: await connected(goal.database.url, readDetails),
  };
  const steps = divide(actions, ends, details, [...renames, ...first]);
  const database = await workshop.scratch.copy(start.database);
  const drafts: Draft[] = [];
  let before = start;
  for (const step of steps) {
    const said = asOwner(step.statements, ends).map(word);
    const finish = async (client: Client) => (step.settles ? await settleDetails(client, details.to) : []);
    const { effects, rest } = await takeStep(database, step.run, said, finish);
    const statements = [...said, ...rest.map(plain).map(workshop.writer.plain)];
    if (statements.length === 0) continue;
    const reached = await look(await workshop.scratch.copy(database), workshop);
    const own = step.statements.some(({ sql }) => renames[0]?.sql === sql) ? renamings : [];
    const back = await wayBack(reached, before, own, step, workshop);
    drafts.push({
      run: step.run,
      statements,
      undo: back.statements.map((statement) => workshop.writer.plain(statement)),
      effects,
      undoEffects: back.effects,
      summary: summarise(step.statements),
      doubts: unhinted(actions, step.statements, ends),
    });
    before = reached;
  }
  return drafts;
}

/** Takes back a step: first its names, where the old ones are free; last otherwise. */
async function wayBack(
  from: Place,
  to: Place,
  renamings: readonly Renaming[],
  step: Step,
  workshop: Workshop,
): Promise<{ statements: readonly Statement[]; effects: Effects }> {
  const names = renamings.toReversed().map(({ undo }) => plain(undo));
  const isFree = renamings.every(({ old }) => !from.facts.has(old));
  const [firstNames, lastNames] = isFree ? [names, []] : [[], names];
  const begun = isFree ? await after(from, names, workshop) : from;
  const ended = isFree ? to : await after(to, forwards(renamings), workshop);
  const { first, actions, place } = await lead(begun, ended.facts, workshop);
  const unseen = step.statements.flatMap(({ undo = [] }) => undo.map(plain));
  const found = actions.map((action) => ({
    sql: step.run === 'concurrently' ? concurrently(action.sql) : action.sql,
    action,
  }));
  const ends = { from: place.facts, to: ended.facts };
  const back = [...firstNames, ...asOwner([...first, ...unseen, ...found], ends)];
  if (step.run === 'concurrently') return { statements: back, effects: NO_EFFECTS };
  const details = await connected(ended.database.url, readDetails);
  const { effects, rest } = await takeStep(
    await workshop.scratch.copy(from.database),
    step.run,
    back.map(({ sql }) => sql),
    async (client) => [...(await settleDetails(client, details)), ...lastNames.map(({ sql }) => sql)],
  );
  return { statements: [...back, ...rest.map(plain)], effects };
}

const forwards = (renamings: readonly Renaming[]): Statement[] => renamings.map(({ sql }) => plain(sql));

/** What leads from a place to a schema, what of it the comparison could not begin without, and the place after that. */
async function lead(
  place: Place,
  goal: FactBase,
  workshop: Workshop,
): Promise<{ first: readonly Statement[]; actions: readonly Action[]; place: Place }> {
  const actions = planBetween(place.facts, goal, workshop.libraries);
  const first = [...takenBack(actions, place.facts), ...renamedIndexes(actions, place.facts, goal)].map(plain);
  if (first.length === 0) return { first, actions, place };
  const begun = await after(place, first, workshop);
  return { first, actions: planBetween(begun.facts, goal, workshop.libraries), place: begun };
}

/** The place after some statements; itself after none. */
async function after(place: Place, statements: readonly Statement[], workshop: Workshop): Promise<Place> {
  if (statements.length === 0) return place;
  const database = await workshop.scratch.copy(place.database);
  await connected(database.url, (client) =>
    runAll(
      client,
      statements.map(({ sql }) => sql),
    ),
  );
  return await look(database, workshop);
}

async function look(database: ScratchDatabase, { libraries }: Workshop): Promise<Place> {
  return { database, facts: (await readFacts(database, libraries)).base };
}
