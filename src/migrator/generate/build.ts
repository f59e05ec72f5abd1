import type { Action, FactBase } from '@supabase/pg-delta';
import type { Client } from 'pg';
import { planBetween, readFacts } from './compare.ts';
import { readDetails, settleDetails } from './details.ts';
import type { Libraries } from './libraries.ts';
import { type Renaming, renamedIndexes } from './renames.ts';
import { asOwner, takenBack } from './rights.ts';
import { type Effects, runAll, takeStep } from './run.ts';
import { connected, type Scratch, type ScratchDatabase } from './scratch.ts';
import { concurrently, divide, type Statement, type Step } from './steps.ts';
import { summarise } from './summary.ts';
import type { Wording, Writer } from './write.ts';

/** A migration before it has a number: its statements both ways, without semicolons. */
export interface Draft {
  readonly run: Step['run'];
  readonly statements: readonly string[];
  readonly undo: readonly string[];
  readonly effects: Effects;
  /** What it does, in words. */
  readonly summary: readonly string[];
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
 * @throws Error where PostgreSQL does not take the statements, or there is no order for them
 */
export async function build(
  start: Place,
  goal: Place,
  renamings: readonly Renaming[],
  word: Wording,
  workshop: Workshop,
): Promise<Draft[]> {
  const renames = renamings.map(({ sql }) => plain(sql));
  const renamed = await after(start, renames, workshop);
  const { first, actions, from } = await lead(renamed, goal.facts, workshop);
  const steps = divide(actions, { from, to: goal.facts }, [...renames, ...first]);
  const database = await workshop.scratch.copy(start.database);
  const details = await connected(goal.database.url, readDetails);
  const drafts: Draft[] = [];
  let before = start;
  for (const step of steps) {
    const said = asOwner(step.statements, { from, to: goal.facts }).map(word);
    const finish = async (client: Client) => (step.settles ? await settleDetails(client, details) : []);
    const { effects, rest } = await takeStep(database, step.run, said, finish);
    const statements = [...said, ...rest.map(plain).map(workshop.writer.plain)];
    if (statements.length === 0) continue;
    const reached = await look(await workshop.scratch.copy(database), workshop);
    const own = step.statements.some(({ sql }) => renames[0]?.sql === sql) ? renamings : [];
    const undo = await wayBack(reached, before, own, step, workshop);
    drafts.push({
      run: step.run,
      statements,
      undo: undo.map((statement) => workshop.writer.plain(statement)),
      effects,
      summary: summarise(step.statements),
    });
    before = reached;
  }
  return drafts;
}

/** Takes back a step: first what the comparison finds, then the names. */
async function wayBack(
  from: Place,
  to: Place,
  renamings: readonly Renaming[],
  step: Step,
  workshop: Workshop,
): Promise<Statement[]> {
  const renamed = await after(
    to,
    renamings.map(({ sql }) => plain(sql)),
    workshop,
  );
  const { first, actions, from: begun } = await lead(from, renamed.facts, workshop);
  const unseen = step.statements.flatMap(({ undo = [] }) => undo.map(plain));
  const found = actions.map((action) => ({
    sql: step.run === 'concurrently' ? concurrently(action.sql) : action.sql,
    action,
  }));
  const back = asOwner([...first, ...unseen, ...found], { from: begun, to: renamed.facts });
  if (step.run === 'concurrently') return back;
  const details = await connected(renamed.database.url, readDetails);
  const { rest } = await takeStep(
    await workshop.scratch.copy(from.database),
    step.run,
    back.map(({ sql }) => sql),
    (client) => settleDetails(client, details),
  );
  return [...back, ...rest.map(plain), ...renamings.toReversed().map(({ undo }) => plain(undo))];
}

/** What leads from a place to a schema, and what of it the comparison could not begin without. */
async function lead(
  place: Place,
  goal: FactBase,
  workshop: Workshop,
): Promise<{ first: readonly Statement[]; actions: readonly Action[]; from: FactBase }> {
  const actions = planBetween(place.facts, goal, workshop.libraries);
  const first = [...takenBack(actions, place.facts), ...renamedIndexes(actions, place.facts, goal)].map(plain);
  if (first.length === 0) return { first, actions, from: place.facts };
  const { facts: from } = await after(place, first, workshop);
  return { first, actions: planBetween(from, goal, workshop.libraries), from };
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

const plain = (sql: string): Statement => ({ sql, action: null });
