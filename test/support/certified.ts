import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { expectedOf } from '../../src/certify/asked.ts';
import { check } from '../../src/certify/check.ts';
import { Faults } from '../../src/certify/faults.ts';
import type { Place, Watched } from '../../src/certify/history.ts';
import { type Asked, Ledger, type Outcome, type Seen, TYPES } from '../../src/certify/ledger.ts';
import { codeOf, Marks } from '../../src/certify/marks.ts';
import { linkOf } from '../../src/demo/record.ts';
import { type Change, ChangeKind, ChangeSchema } from '../../src/gen/jeex/persistence/v1/change_service_pb.js';

const user = (last: number): string => `00000000-0000-7000-8000-00000000000${last}`;

export const PLACE: Place = {
  index: 0,
  id: '00000000-0000-7000-8000-0000000000aa',
  users: { owner: user(1), editor: user(2), viewer: user(3), stranger: user(4) },
};

export const MARKS = new Marks('0123456789abcdef');

const NO_SEEN: Omit<Seen, 'sight'> = { type: 0, version: 0, revision: 0, code: 0, writer: 0 };

/** A row as an answer shows it: the fields that matter. */
export const row = (sight: Seen['sight'], fields: Partial<Seen> = {}): Seen => ({ ...NO_SEEN, ...fields, sight });

/** What a write of a told history was: its number, call, and the revisions it made. */
export interface Done {
  readonly operation: number;
  readonly call: number;
  readonly first: number;
}

/** The chain of a change, after the one before it. */
const chainOf = (before: string, change: Change): string => {
  const {
    project_id,
    revision,
    kind,
    resource_id,
    document_type,
    version,
    actor_id,
    caller,
    correlation_id,
    create_time,
  } = linkOf(change);
  const fields = [
    project_id,
    revision,
    kind,
    resource_id,
    document_type,
    version,
    actor_id,
    caller,
    correlation_id,
    create_time,
  ];
  return createHash('sha256').update(Buffer.from(before, 'hex')).update(fields.join('\n')).digest('hex');
};

/** Computes every chain again, as a service does that records what it should not have. */
export const rechained = (changes: readonly Change[]): Change[] => {
  let before = '00'.repeat(32);
  return changes.map((change) => {
    before = chainOf(before, change);
    return { ...change, chain: before };
  });
};

/** Numbers changes anew, from 1, and chains them: so that what one tampers with is the only thing wrong. */
export const renumbered = (changes: readonly Change[]): Change[] =>
  rechained(changes.map((change, place) => ({ ...change, revision: BigInt(place + 1) })));

/** A history that a test tells, call by call, as a good service would have made it; every call takes a unit of time. */
export class Told {
  readonly ledger = new Ledger();
  readonly watched: Watched[] = [];
  changes: Change[] = [];
  /** The clock. */
  now = 1;
  readonly #heads = TYPES.map(() => 0);

  constructor() {
    this.record(0, 1, { kind: ChangeKind.PROJECT_CREATED, actorId: PLACE.users.owner });
  }

  get head(): number {
    return this.changes.length;
  }

  record(operation: number, attempt: number, fields: Omit<Partial<Change>, '$typeName'>): number {
    const change = create(ChangeSchema, {
      projectId: PLACE.id,
      revision: BigInt(this.head + 1),
      resourceId: PLACE.id,
      actorId: PLACE.users.editor,
      caller: 'certify',
      correlationId: MARKS.correlationId({ operation, attempt }),
      createTime: timestampFromMs(1_000_000 + this.head),
      ...fields,
    });
    this.changes = rechained([...this.changes, change]);
    return this.head;
  }

  /** Makes the changes that an operation asked for. @param about the ids of runs and exports, by code */
  apply(operation: number, attempt = 1): number {
    const first = this.head + 1;
    for (const [entry, { kind, type, target }] of expectedOf(this.ledger.asked(operation)).entries()) {
      const own = this.ledger.kind(operation);
      const code = target ?? (own === 'claimRun' ? this.claims : codeOf(operation, entry));
      const version = type === undefined ? {} : this.#append(type);
      const resourceId = kind === ChangeKind.PROJECT_UPDATED ? PLACE.id : resourceOf(code);
      const actorId = this.ledger.asked(operation).actor === 'system' ? '' : PLACE.users.editor;
      this.record(operation, attempt, { kind, resourceId, actorId, ...version });
    }
    return first;
  }

  /** Which run the next claim gets. */
  claims = 0;

  /** A write from its begin to its end. */
  write(
    asked: Omit<Asked, 'project' | 'actor'> & Partial<Asked>,
    see: (done: Done) => readonly Seen[] = () => [],
  ): Done {
    const operation = this.ledger.ask({ project: 0, actor: 'editor', ...asked });
    const call = this.begin(operation);
    const done = { operation, call, first: this.apply(operation) };
    this.end(call, 'answered', see(done));
    return done;
  }

  /** Appends a version, and tells of it. */
  append(type = 0): Done {
    return this.write({ kind: 'append', type }, ({ operation, first }) => [
      this.version(type, this.#heads[type] as number, first, operation),
    ]);
  }

  version(type: number, version: number, revision: number, operation: number, sight: Seen['sight'] = 'version'): Seen {
    return row(sight, { type, version, revision, writer: operation });
  }

  read(asked: Omit<Asked, 'project' | 'actor'>, seen: readonly Seen[]): number {
    const call = this.begin(this.ledger.ask({ project: 0, actor: 'viewer', ...asked }));
    this.end(call, 'answered', seen);
    return call;
  }

  begin(operation: number): number {
    this.now += 1;
    return this.ledger.begin(operation, this.now);
  }

  end(call: number, outcome: Outcome, seen: readonly Seen[] = [], digest = 7): void {
    this.now += 1;
    this.ledger.end(call, outcome, digest, this.now);
    this.ledger.see(call, seen);
  }

  /** The last look, at everything that the record says is there. */
  audit(leftOut: (seen: Seen) => boolean = () => false): void {
    const versions = this.changes.filter(({ kind }) => kind === ChangeKind.VERSION_APPENDED);
    const seen = versions.map((change) => {
      const { operation = 0 } = MARKS.readCorrelation(change.correlationId) ?? {};
      return this.version(
        TYPES.indexOf(change.documentType as 'idea'),
        change.version,
        Number(change.revision),
        operation,
      );
    });
    const of = (kind: ChangeKind) => this.changes.filter((change) => change.kind === kind);
    const runs = of(ChangeKind.EXECUTION_CREATED).map((change) => row('run', this.#status(change)));
    const kept = (rows: readonly Seen[]) => rows.filter((each) => !leftOut(each));
    this.read({ kind: 'auditVersions' }, kept(seen));
    this.read({ kind: 'auditRuns' }, kept(runs));
    this.read(
      { kind: 'auditExports' },
      kept(of(ChangeKind.EXPORT_CREATED).flatMap((change) => this.exportRows(change, this.#downloads(change)))),
    );
  }

  /** What an export shows: itself, and its manifest. */
  exportRows(change: Change, downloads = 0): readonly Seen[] {
    const revision = Number(change.revision) - 1;
    const code = codeOfResource(change.resourceId);
    const before = this.changes.filter((each) => Number(each.revision) <= revision);
    const manifest = TYPES.flatMap((name, type) => {
      const version = before.filter(({ documentType }) => documentType === name).length;
      return version === 0 ? [] : [row('manifest', { type, version, revision, writer: code })];
    });
    return [row('export', { version: 1, revision, code, writer: downloads }), ...manifest];
  }

  /** What the checker finds. */
  async faults(): Promise<Faults> {
    const faults = new Faults();
    const projects = [{ place: PLACE, pages: [this.changes.slice(0, 3), this.changes.slice(3)] }];
    await check({ ledger: this.ledger, marks: MARKS, projects, watched: this.watched }, faults);
    return faults;
  }

  #append(type: number): Partial<Change> {
    const version = (this.#heads[type] as number) + 1;
    this.#heads[type] = version;
    return { documentType: TYPES[type] as string, version };
  }

  #downloads({ resourceId }: Change): number {
    return this.changes.filter((each) => each.kind === ChangeKind.EXPORT_DOWNLOADED && each.resourceId === resourceId)
      .length;
  }

  #status({ resourceId }: Change): Partial<Seen> {
    const last = this.changes.findLast((change) => change.resourceId === resourceId)?.kind;
    return { code: codeOfResource(resourceId), version: RUN_STATUS.get(last as ChangeKind) ?? 1 };
  }
}

const RUN_STATUS: ReadonlyMap<ChangeKind, number> = new Map([
  [ChangeKind.EXECUTION_STARTED, 2],
  [ChangeKind.EXECUTION_COMPLETED, 3],
]);

const resourceOf = (code: number): string => `00000000-0000-7000-9000-${code.toString(16).padStart(12, '0')}`;
const codeOfResource = (id: string): number => Number.parseInt(id.slice(-12), 16);
