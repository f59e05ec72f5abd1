import type { Kind, Seen } from './ledger.ts';
import { TYPES } from './ledger.ts';
import { operationOf } from './marks.ts';
import type { Context } from './moments.ts';

/** The rows that the last look at a project has shown: whatever the record names has to be among them. */
export class AuditedRows {
  readonly #context: Context;
  readonly #versions: readonly Set<number>[] = TYPES.map(() => new Set());
  readonly #runs = new Set<number>();
  readonly #exports = new Set<number>();

  constructor(context: Context) {
    this.#context = context;
  }

  take(kind: Kind, { type, version, code }: Seen): void {
    if (kind === 'auditVersions') this.#versions[type]?.add(version);
    if (kind === 'auditRuns') this.#runs.add(code);
    if (kind === 'auditExports') this.#exports.add(code);
  }

  end(): void {
    const { timeline } = this.#context;
    for (const [type, { revisions, writers }] of timeline.documents.entries()) {
      for (const [place, revision] of revisions.entries()) {
        if (this.#versions[type]?.has(place + 1) || !this.#isDue(writers[place] ?? 0)) continue;
        this.#miss(`${TYPES[type]} version ${place + 1}`, revision);
      }
    }
    for (const [code, { created }] of timeline.runs) {
      if (!this.#runs.has(code) && this.#isDue(operationOf(code))) this.#miss(`run ${code}`, created);
    }
    for (const [code, { created }] of timeline.exports) {
      if (!this.#exports.has(code) && this.#isDue(operationOf(code))) this.#miss(`export ${code}`, created);
    }
  }

  /** What nobody was told of may have been written after the last look. */
  #isDue(operation: number): boolean {
    const { ledger } = this.#context;
    for (const call of ledger.callsOf(operation)) if (ledger.outcome(call) === 'answered') return true;
    return false;
  }

  #miss(what: string, revision: number): void {
    const { faults, place } = this.#context;
    faults.add('row', `project ${place.id}: ${what}, recorded at revision ${revision}, is not there`);
  }
}
