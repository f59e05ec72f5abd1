import type { CreateFunctionStmt } from 'libpg-query';
import { JUDGE } from './advice.ts';
import { CHANGE_CLASSES, type ChangeClass, type Finding, start } from './finding.ts';

/** A kind of object with names of its own. Tables, views, indexes and sequences share theirs. */
export type ObjectKind = 'relation' | 'routine' | 'type' | 'schema' | 'policy' | 'other';

/** What existing rows have in a column that the file adds: null, or a default that is the same in each. */
export type NewColumn = 'empty' | 'filled';

export interface MadeFunction {
  readonly made: CreateFunctionStmt;
  readonly text: string;
}

/** One migration as far as it was read: what it has made, which therefore nobody has used yet, and what was found. */
export class Scope {
  readonly findings: Finding[] = [];
  /** The classes that something in the file may belong to without the file telling. */
  readonly open = new Set<ChangeClass>();
  /** Policies that the file makes, also further down: dropping one to make it anew takes nobody's rows away. */
  readonly policies: ReadonlySet<string>;
  /** Of the statement that is being read. */
  line = 1;
  text = '';
  /** The functions that the file makes, by their names: what is called of them is judged like the file's own. */
  readonly bodies = new Map<string, MadeFunction>();
  readonly #made = new Set<string>();
  readonly #columns = new Map<string, NewColumn>();
  readonly #granted = new Set<string>();

  constructor(policies: ReadonlySet<string>) {
    this.policies = policies;
  }

  find(of: Finding['class'], what: string, advice: string): void {
    const { line } = this;
    const isSaid = this.findings.some((one) => one.class === of && one.line === line && one.what === what);
    if (!isSaid) this.findings.push({ class: of, line, what, advice });
  }

  /** For a statement that nobody has decided on. */
  findUnknown(): void {
    this.leaveOpen();
    this.find('unknown', `\`${start(this.text)}\` is none of what can be judged`, JUDGE);
  }

  leaveOpen(...classes: readonly ChangeClass[]): void {
    for (const one of classes.length > 0 ? classes : CHANGE_CLASSES) this.open.add(one);
  }

  make(kind: ObjectKind, name: string): void {
    this.#made.add(`${kind} ${name}`);
  }

  isNew(kind: ObjectKind, name: string): boolean {
    return this.#made.has(`${kind} ${name}`);
  }

  addColumn(table: string, column: string, content: NewColumn | undefined): void {
    if (content !== undefined) this.#columns.set(`${table}.${column}`, content);
  }

  /** Of a column that may have been there before all the same. */
  forgetColumn(table: string, column: string): void {
    this.#columns.delete(`${table}.${column}`);
  }

  /** Undefined where the column was there before, or was added in a way that fills it from the rows. */
  newColumn(table: string, column: string): NewColumn | undefined {
    return this.#columns.get(`${table}.${column}`);
  }

  grant(right: string): void {
    this.#granted.add(right);
  }

  isGranted(right: string): boolean {
    return this.#granted.has(right);
  }
}
