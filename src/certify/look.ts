import { createHash } from 'node:crypto';
import type { AgentExecution, Payload } from '../gen/jeex/persistence/v1/agent_execution_service_pb.js';
import type { Change } from '../gen/jeex/persistence/v1/change_service_pb.js';
import type { DocumentVersion } from '../gen/jeex/persistence/v1/document_service_pb.js';
import type { Export } from '../gen/jeex/persistence/v1/export_service_pb.js';
import type { Project, ProjectUsage } from '../gen/jeex/persistence/v1/project_service_pb.js';
import type { Faults } from './faults.ts';
import type { Place } from './history.ts';
import { type Seen, TYPES } from './ledger.ts';
import { codeOf, type Marks } from './marks.ts';

/** What no operation is: the writer of what the run did not write. */
const NOBODY = 0xffffffff;

const NOTHING: Omit<Seen, 'sight'> = { type: 0, version: 0, revision: 0, code: 0, writer: 0 };

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

const typeIndex = (name: string): number => {
  const type = TYPES.indexOf(name as (typeof TYPES)[number]);
  return type < 0 ? TYPES.length : type;
};

/** Reads answers: turns each row into what it says, and checks at once what a row shows by itself: whose it is, and its content. */
export class Look {
  readonly #marks: Marks;
  readonly #faults: Faults;

  constructor(marks: Marks, faults: Faults) {
    this.#marks = marks;
    this.#faults = faults;
  }

  /** @param sight whether it was shown as the head, as itself, or as of a revision; full: with its content */
  version(place: Place, sight: 'head' | 'version' | 'headAt', version: DocumentVersion, full: boolean): Seen {
    const { documentType, version: number, projectRevision, correlationId } = version;
    const writer = this.#marks.readCorrelation(correlationId)?.operation ?? NOBODY;
    const code = full ? this.#content(place, version) : 0;
    return { sight, type: typeIndex(documentType), version: number, revision: Number(projectRevision), code, writer };
  }

  /** A document that is not there yet. */
  absent(sight: 'head' | 'headAt', type: number): Seen {
    return { ...NOTHING, sight, type };
  }

  /** The head that a conflict tells. */
  conflict(type: number, version: number): Seen {
    return { ...NOTHING, sight: 'head', type, version };
  }

  project({ id, revision, name }: Project): Seen {
    const code = this.#marks.readName(name);
    if (code === null) this.#faults.add('read', `project ${id} has a name that nobody gave it`);
    return { ...NOTHING, sight: 'project', revision: Number(revision), code: code ?? NOBODY };
  }

  usage({ versions, executions, exports }: ProjectUsage): Seen {
    const runs = executions.reduce((sum, { count }) => sum + Number(count), 0);
    return { ...NOTHING, sight: 'usage', version: Number(versions), code: runs, revision: Number(exports) };
  }

  /** @param shows which of its payloads are shown, and so checked */
  run(place: Place, run: AgentExecution, shows: { readonly input?: boolean; readonly output?: boolean }): Seen {
    const code = this.#created(run.correlationId, run.attempt - 1);
    if (shows.input && this.#payload(run.input) !== this.input(code)) {
      this.#faults.add('content', `project ${place.id}: run ${run.id} has another input than it was given`);
    }
    const written = shows.output ? this.#payload(run.output) : '';
    const writer = Number(/^output ([0-9a-f]{16}) (\d+)$/.exec(written)?.[2] ?? 0);
    if (written !== (writer === 0 ? '' : this.output(writer))) {
      this.#faults.add('content', `project ${place.id}: run ${run.id} has another output than it was given`);
    }
    return { ...NOTHING, sight: 'run', version: run.status, code, writer };
  }

  /** What a run is given, and what it gives. */
  input(code: number): string {
    return `input ${this.#marks.run} ${code}`;
  }

  output(operation: number): string {
    return `output ${this.#marks.run} ${operation}`;
  }

  /** The export, and what its manifest names. */
  export(exported: Export): readonly Seen[] {
    const { correlationId, status, projectRevision, downloadCount, manifest } = exported;
    const revision = Number(projectRevision);
    const code = this.#created(correlationId, 0);
    const writer = Number(downloadCount);
    return [
      { ...NOTHING, sight: 'export', version: status, revision, code, writer },
      ...(manifest?.entries ?? []).map(({ documentType, version }): Seen => {
        return { sight: 'manifest', type: typeIndex(documentType), version, revision, code: 0, writer: code };
      }),
    ];
  }

  /** What an export streamed, which has to be its manifest byte for byte. */
  streamed(place: Place, exported: Export, versions: readonly DocumentVersion[]): readonly Seen[] {
    const told = (exported.manifest?.entries ?? []).map((entry) => keyOf(entry));
    const came = versions.map((version) => keyOf({ ...version, contentSha256: sha256(version.content) }));
    if (told.join() !== came.join()) {
      this.#faults.add('content', `project ${place.id}: export ${exported.id} is not what its manifest names`);
    }
    const revision = Number(exported.projectRevision);
    const writer = this.#created(exported.correlationId, 0);
    return versions.map((version): Seen => {
      const code = this.#content(place, version);
      return {
        sight: 'manifest',
        type: typeIndex(version.documentType),
        version: version.version,
        revision,
        code,
        writer,
      };
    });
  }

  /** @param after the cursor that was asked for; atEnd: nothing came after the page */
  feed(place: Place, changes: readonly Change[], after: number, atEnd: boolean): Seen {
    const wrong = changes.findIndex(({ revision }, index) => Number(revision) !== after + index + 1);
    if (wrong >= 0) {
      this.#faults.add(
        'revisionGap',
        `project ${place.id}: revision ${after + wrong + 1} is missing in a list of changes`,
      );
    }
    const last = changes.at(-1);
    const code = last ? Number.parseInt(last.chain.slice(-8), 16) : 0;
    const revision = Number(last?.revision ?? after);
    return { ...NOTHING, sight: 'feed', revision, version: atEnd ? 1 : 0, code };
  }

  #created(correlationId: string, entry: number): number {
    const found = this.#marks.readCorrelation(correlationId);
    return found === null || entry < 0 ? NOBODY : codeOf(found.operation, entry);
  }

  #payload(payload: Payload | undefined): string {
    return payload ? Buffer.from(payload.data).toString() : '';
  }

  #content(place: Place, { content, contentSha256, sizeBytes, documentType, version }: DocumentVersion): number {
    const name = `project ${place.id}: ${documentType} version ${version}`;
    if (sha256(content) !== contentSha256 || Buffer.byteLength(content) !== Number(sizeBytes)) {
      this.#faults.add('content', `${name} is not what its hash says`);
    }
    const code = this.#marks.readContent(content);
    if (code === null) this.#faults.add('content', `${name} is not what was written`);
    return code ?? NOBODY;
  }
}

const keyOf = ({
  documentType,
  version,
  contentSha256,
}: {
  documentType: string;
  version: number;
  contentSha256: string;
}) => `${documentType} ${version} ${contentSha256}`;

/** The ids of other projects in the rows of an answer: every row names the project it is of. */
export const foreignIn = (value: unknown, project: string): readonly string[] => {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return [];
  if (Array.isArray(value)) return value.flatMap((item) => foreignIn(item, project));
  return Object.entries(value).flatMap(([key, item]) =>
    key === 'projectId' ? (item === project ? [] : [String(item)]) : foreignIn(item, project),
  );
};
