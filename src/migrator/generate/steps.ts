import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { escapeIdentifier } from 'pg';
import type { Details } from './details.ts';

/** What belongs to a table: a column, a constraint. */
export type Part = Extract<StableId, { readonly table: string; readonly name: string }>;

/** A statement of a migration, without its semicolon. */
export interface Statement {
  readonly sql: string;
  /** What the comparison says of it; null: it is not the comparison's. */
  readonly action: Action | null;
  /** What takes it back, where the comparison does not see what it does. */
  readonly undo?: readonly string[];
  /** What it is for, where the comparison says nothing of it. */
  readonly says?: string;
}

/** What becomes one migration. */
export interface Step {
  readonly run: 'transaction' | 'concurrently';
  readonly statements: readonly Statement[];
  /** At its end everything is there of which details may have to be settled. */
  readonly settles: boolean;
}

/** Both ends of a comparison. */
export interface Ends {
  readonly from: FactBase;
  readonly to: FactBase;
}

/** What the comparison does not look at, at both ends. */
export interface BothDetails {
  readonly from: Details;
  readonly to: Details;
}

/**
 * Divides what leads from one schema to the other into migrations that hold nobody up for long: what can be built beside a
 * table in use is, and what has to read the whole of one does so when the lock that would keep others out is given back.
 * @param first what the comparison already takes for done
 */
export function divide(
  actions: readonly Action[],
  ends: Ends,
  details: BothDetails,
  first: readonly Statement[] = [],
): Step[] {
  const places = new Places(actions, ends, details, first);
  for (const action of actions) places.take(action);
  return places.steps();
}

class Places {
  /** New values of enums: nothing may use them before they are committed. */
  readonly #values: Statement[] = [];
  readonly #dropped: Statement[] = [];
  readonly #main: Statement[];
  readonly #built: Statement[] = [];
  /** What has its replacement beside it by then. */
  readonly #replaced: Statement[] = [];
  /** What reads whole tables without keeping anybody out. */
  readonly #validated: Statement[] = [];
  /** What needs the indexes. */
  readonly #last: Statement[] = [];
  readonly #lastValidated: Statement[] = [];
  /** What is not there yet when the main part is through. */
  readonly #late = new Set<string>();
  readonly #ends: Ends;
  readonly #details: BothDetails;
  /** By identity: how what becomes another under its name goes; null until that is known. */
  readonly #replacements: Map<string, Action | null>;

  constructor(actions: readonly Action[], ends: Ends, details: BothDetails, first: readonly Statement[]) {
    this.#ends = ends;
    this.#details = details;
    this.#replacements = new Map(replacedOf(actions, ends).map((id) => [key(id), null]));
    this.#main = [...first];
  }

  /** Some may turn out to have nothing to do. */
  steps(): Step[] {
    const whole = (statements: readonly Statement[], settles: boolean): Step => ({
      run: 'transaction',
      statements,
      settles,
    });
    const single = (statement: Statement): Step => ({ run: 'concurrently', statements: [statement], settles: false });
    return [
      whole(this.#values, false),
      whole(this.#unsettle(this.#dropped), false),
      ...this.#dropped.map(single),
      whole(this.#main, true),
      ...this.#built.map(single),
      whole(this.#validated, false),
      whole(this.#unsettle(this.#replaced), false),
      ...this.#replaced.map(single),
      whole(this.#last, true),
      whole(this.#lastValidated, false),
    ];
  }

  take(action: Action): void {
    const { sql, produces, destroys, consumes } = action;
    const adds = !/ RENAME /.test(sql);
    const [made] = produces;
    const [gone] = destroys;
    const column = consumes.find((id) => id.kind === 'column');
    if (action.transactionality === 'commitBoundaryAfter') this.#values.push({ sql, action });
    else if (gone && this.#replacements.has(key(gone))) this.#replacements.set(key(gone), action);
    else if (made && this.#replacements.has(key(made))) this.#replace(action, made);
    else if (this.#needsLate(action)) this.#takeLate(action, made);
    else if (made?.kind === 'index' && adds && this.#isInUse(this.#tableOf(made))) this.#build(action, made);
    else if (made?.kind === 'constraint' && adds && this.#isInUse(this.#tableOf(made))) this.#constrain(action, made);
    else if (gone?.kind === 'index' && adds && this.#canGoAlone(gone))
      this.#dropped.push({ sql: concurrently(sql), action });
    else if (column?.kind === 'column' && / SET NOT NULL$/.test(sql)) this.#requireValue(action, column);
    else if (/ VALIDATE CONSTRAINT /.test(sql)) this.#validated.push({ sql, action });
    else this.#main.push({ sql, action });
  }

  #tableOf(made: StableId): StableId | undefined {
    return this.#ends.to.get(made)?.parent;
  }

  /** A table that is there before and after: somebody may be using it. */
  #isInUse(id: StableId | undefined): boolean {
    return id?.kind === 'table' && this.#ends.from.has(id) && this.#ends.to.has(id);
  }

  #needsLate(action: Action): boolean {
    const needs = [...action.consumes, ...action.produces.flatMap((id) => this.#needsOf(id))];
    return needs.some((id) => this.#late.has(key(id)));
  }

  #needsOf(id: StableId): StableId[] {
    return this.#ends.to.outgoingEdges(id).map(({ to }) => to);
  }

  #takeLate(action: Action, made: StableId | undefined): void {
    for (const id of action.produces) this.#late.add(key(id));
    if (made?.kind === 'constraint' && this.#isLaterValid(made)) {
      this.#addNotValid(action, made, this.#last, this.#lastValidated);
    } else this.#last.push({ sql: action.sql, action });
  }

  #build(action: Action, index: StableId): void {
    this.#late.add(key(index));
    this.#built.push({ sql: concurrently(action.sql), action });
  }

  /** An index goes beside its table's use, unless something else has to go before it. */
  #canGoAlone(index: StableId): boolean {
    const { from } = this.#ends;
    return this.#isInUse(from.get(index)?.parent) && from.incomingEdges(index).length === 0;
  }

  /** Builds what follows under another name beside it, so that at no time there is neither. */
  #replace(action: Action, made: StableId): void {
    const leaving = this.#replacements.get(key(made));
    if (!leaving || !('name' in made)) return;
    const meanwhile = `${made.name.slice(0, 59)}_new`;
    this.#late.add(key(made));
    if (made.kind === 'constraint') {
      const add = this.#takeOver(action, made, partsOf(made, this.#ends.to) ?? [], meanwhile);
      this.#last.push({ sql: leaving.sql, action: leaving }, add);
      return;
    }
    const rename = renameIndex(meanwhile, made.name);
    const says = `Gives index ${meanwhile} the name ${made.name}, which is free by now.`;
    this.#built.push({ sql: concurrently(named(action.sql, meanwhile)), action });
    this.#replaced.push({ sql: concurrently(leaving.sql), action: leaving });
    this.#last.push({ ...plain(rename), says });
  }

  /**
   * The undo of a drop beside the use of a table is one statement, which makes an index without its statistics: they go
   * before it, and come back after its undo.
   */
  #unsettle(drops: readonly Statement[]): Statement[] {
    const gone = new Set(drops.flatMap(({ action }) => action?.destroys ?? []).map((id) => 'name' in id && id.name));
    return [...this.#details.from.values()]
      .filter(({ kind, relation, statistics }) => kind === 'index' && gone.has(relation) && statistics !== null)
      .map(({ relation, column }) => ({
        ...plain(`ALTER INDEX jeex.${escapeIdentifier(relation)} ALTER COLUMN ${column} SET STATISTICS -1`),
        says: `Index ${relation} is dropped next: so its undo can give it back its statistics.`,
      }));
  }

  #constrain(action: Action, constraint: Part): void {
    const parts = partsOf(constraint, this.#ends.to);
    if (this.#isLaterValid(constraint)) this.#addNotValid(action, constraint, this.#main, this.#validated);
    else if (parts) {
      this.#last.push(this.#takeOver(action, constraint, parts, constraint.name));
      this.#late.add(key(constraint));
    } else this.#main.push({ sql: action.sql, action });
  }

  /** A check or foreign key of a table in use, which may be there before anybody has looked at the rows. */
  #isLaterValid(constraint: Part): boolean {
    const { type, validated } = this.#ends.to.get(constraint)?.payload ?? {};
    return (type === 'c' || type === 'f') && validated === true && this.#isInUse(this.#tableOf(constraint));
  }

  /** A rule for the rows to come is quickly said; whether the present ones keep it is looked at afterwards. */
  #addNotValid(action: Action, { table, name }: Part, now: Statement[], afterwards: Statement[]): void {
    now.push({ sql: `${action.sql} NOT VALID`, action });
    afterwards.push(plain(validate(table, name)));
  }

  /** A constraint that takes over an index, which is built before it. */
  #takeOver(
    action: Action,
    { table, name }: Part,
    [, kind, nulls = '', columns, include = '', rest = '']: readonly string[],
    built: string,
  ): Statement {
    const index = escapeIdentifier(built);
    const unique = `CREATE UNIQUE INDEX CONCURRENTLY ${index} ON ${relation(table)} ${columns}${include}${nulls}`;
    this.#built.push(plain(unique));
    const using = `${kind} USING INDEX ${index}${rest}`;
    return { sql: `${alter(table)} ADD CONSTRAINT ${escapeIdentifier(name)} ${using}`, action };
  }

  /** The comparison knows that a column takes no null, and not whether that was looked at. */
  #requireValue(action: Action, { table, name }: Part): void {
    const constraint = this.#details.to.get(`${table} ${name}`)?.notNull ?? `${table}_${name}_not_null`;
    const rule = `ADD CONSTRAINT ${escapeIdentifier(constraint)} NOT NULL ${escapeIdentifier(name)} NOT VALID`;
    const lift = `${alter(table)} ALTER COLUMN ${escapeIdentifier(name)} DROP NOT NULL`;
    this.#main.push({ sql: `${alter(table)} ${rule}`, action });
    this.#validated.push({ ...plain(validate(table, constraint)), undo: [lift, `${alter(table)} ${rule}`] });
  }
}

/**
 * What is there before and after under one name and is not the same: an index, or a constraint that stands on one, of a
 * table that somebody may be using.
 */
export function replacedOf(actions: readonly Action[], { from, to }: Ends): StableId[] {
  const gone = new Set(actions.flatMap(({ destroys }) => destroys).map(key));
  return actions
    .flatMap(({ produces }) => produces)
    .filter((id) => gone.has(key(id)) && (id.kind === 'index' || partsOf(id, to) !== null))
    .filter((id) => from.get(id)?.payload.def !== to.get(id)?.payload.def)
    .filter((id) => [from, to].every((facts) => facts.get(id)?.parent?.kind === 'table'));
}

/** Of a constraint that can take over an index: its parts; null of another. */
function partsOf(id: StableId, facts: FactBase): readonly string[] | null {
  const def = id.kind === 'constraint' ? String(facts.get(id)?.payload.def) : '';
  return /^(UNIQUE|PRIMARY KEY)( NULLS NOT DISTINCT)? (\([^()]*\))( INCLUDE \([^()]*\))?( .*)?$/.exec(def);
}

const INDEX = /^(CREATE (?:UNIQUE )?INDEX) (?:"(?:[^"]|"")+"|\S+) (ON .*)$/s;

/** What an index is, whatever its name. */
export const withoutName = (definition: string): string | undefined => INDEX.exec(definition)?.slice(1).join(' ');

const named = (definition: string, name: string): string =>
  definition.replace(INDEX, (_, create: string, on: string) => `${create} ${escapeIdentifier(name)} ${on}`);

export const renameIndex = (from: string, to: string): string =>
  `ALTER INDEX jeex.${escapeIdentifier(from)} RENAME TO ${escapeIdentifier(to)}`;

/** A statement that the comparison says nothing of. */
export const plain = (sql: string): Statement => ({ sql, action: null });

/** An identity as text, which can be looked up. */
export const key = (id: StableId): string => JSON.stringify(id);

const relation = (table: string): string => `jeex.${escapeIdentifier(table)}`;

const alter = (table: string): string => `ALTER TABLE ${relation(table)}`;

const validate = (table: string, constraint: string): string =>
  `${alter(table)} VALIDATE CONSTRAINT ${escapeIdentifier(constraint)}`;

/** The same beside the use of the table. */
export const concurrently = (sql: string): string =>
  sql.replace(/^(CREATE (?:UNIQUE )?INDEX|DROP INDEX) (?!CONCURRENTLY)/, '$1 CONCURRENTLY ');
