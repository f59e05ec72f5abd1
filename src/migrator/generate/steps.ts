import type { Action, FactBase, StableId } from '@supabase/pg-delta';
import { escapeIdentifier } from 'pg';

/** What belongs to a table: a column, a constraint. */
type Part = Extract<StableId, { readonly table: string; readonly name: string }>;

/** A statement of a migration, without its semicolon. */
export interface Statement {
  readonly sql: string;
  /** What the comparison says of it; null: it is not the comparison's. */
  readonly action: Action | null;
  /** What takes it back, where the comparison does not see what it does. */
  readonly undo?: readonly string[];
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

/**
 * Divides what leads from one schema to the other into migrations that hold nobody up for long: what can be built beside a
 * table in use is, and what has to read the whole of one does so when the lock that would keep others out is given back.
 * @param first what the comparison already takes for done
 */
export function divide(actions: readonly Action[], ends: Ends, first: readonly Statement[] = []): Step[] {
  const places = new Places(ends, first);
  for (const action of actions) places.take(action);
  return places.steps();
}

class Places {
  /** New values of enums: nothing may use them before they are committed. */
  readonly #values: Statement[] = [];
  readonly #dropped: Statement[] = [];
  readonly #main: Statement[];
  readonly #built: Statement[] = [];
  /** What reads whole tables without keeping anybody out. */
  readonly #validated: Statement[] = [];
  /** What needs the indexes. */
  readonly #last: Statement[] = [];
  readonly #lastValidated: Statement[] = [];
  /** What is not there yet when the main part is through. */
  readonly #late = new Set<string>();
  readonly #ends: Ends;

  constructor(ends: Ends, first: readonly Statement[]) {
    this.#ends = ends;
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
      ...this.#dropped.map(single),
      whole(this.#main, true),
      ...this.#built.map(single),
      whole(this.#validated, false),
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

  #constrain(action: Action, constraint: Part): void {
    const def = String(this.#ends.to.get(constraint)?.payload.def);
    const parts = /^(UNIQUE|PRIMARY KEY)( NULLS NOT DISTINCT)? (\([^()]*\))( INCLUDE \([^()]*\))?( .*)?$/.exec(def);
    if (this.#isLaterValid(constraint)) this.#addNotValid(action, constraint, this.#main, this.#validated);
    else if (parts) this.#takeOver(action, constraint, parts);
    else this.#main.push({ sql: action.sql, action });
  }

  /** A check or foreign key of a table in use, which may be there before anybody has looked at the rows. */
  #isLaterValid(constraint: Part): boolean {
    const { type, validated } = this.#ends.to.get(constraint)?.payload ?? {};
    return (type === 'c' || type === 'f') && validated === true && this.#isInUse(this.#tableOf(constraint));
  }

  /** A rule for the rows to come is quickly said; whether the present ones keep it is looked at afterwards. */
  #addNotValid(action: Action, { table, name }: Part, now: Statement[], afterwards: Statement[]): void {
    now.push({ sql: `${action.sql} NOT VALID`, action });
    afterwards.push({ sql: validate(table, name), action: null });
  }

  /** A constraint that takes over an index, which is built before it. */
  #takeOver(action: Action, constraint: Part, [, kind, nulls = '', columns, include = '', rest = '']: string[]): void {
    const { table, name } = constraint;
    const index = escapeIdentifier(name);
    const unique = `CREATE UNIQUE INDEX CONCURRENTLY ${index} ON ${relation(table)} ${columns}${include}${nulls}`;
    this.#built.push({ sql: unique, action: null });
    const using = `${kind} USING INDEX ${index}${rest}`;
    this.#last.push({ sql: `${alter(table)} ADD CONSTRAINT ${index} ${using}`, action });
    this.#late.add(key(constraint));
  }

  /** The comparison knows that a column takes no null, and not whether that was looked at. */
  #requireValue(action: Action, { table, name }: Part): void {
    const constraint = `${table}_${name}_not_null`;
    const rule = `ADD CONSTRAINT ${escapeIdentifier(constraint)} NOT NULL ${escapeIdentifier(name)} NOT VALID`;
    const lift = `${alter(table)} ALTER COLUMN ${escapeIdentifier(name)} DROP NOT NULL`;
    this.#main.push({ sql: `${alter(table)} ${rule}`, action });
    this.#validated.push({ sql: validate(table, constraint), action: null, undo: [lift, `${alter(table)} ${rule}`] });
  }
}

/** An identity as text, which can be looked up. */
export const key = (id: StableId): string => JSON.stringify(id);

const relation = (table: string): string => `jeex.${escapeIdentifier(table)}`;

const alter = (table: string): string => `ALTER TABLE ${relation(table)}`;

const validate = (table: string, constraint: string): string =>
  `${alter(table)} VALIDATE CONSTRAINT ${escapeIdentifier(constraint)}`;

/** The same beside the use of the table. */
export const concurrently = (sql: string): string =>
  sql.replace(/^(CREATE (?:UNIQUE )?INDEX|DROP INDEX) (?!CONCURRENTLY)/, '$1 CONCURRENTLY ');
