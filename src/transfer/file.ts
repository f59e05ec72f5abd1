import { createHash } from 'node:crypto';
import { z } from 'zod';
import { PROJECT_TABLES } from './tables.ts';

// A project's file: lines of JSON. The first says what it is, the last one counts and hashes what stands between.

const FORMAT = 'jeex-project';
const FORMAT_VERSION = 1;

/** A line holds a row; its content, at most 3 MiB, may take six bytes for one where it has to be escaped. */
const MAX_LINE_BYTES = 32 * 1024 * 1024;
const LINE_END = 0x0a;

const header = z.object({
  format: z.literal(FORMAT),
  version: z.int(),
  project: z.guid(),
  /** In decimal. */
  revision: z.string(),
  /** The release and the schema's version it was made by. */
  release: z.string(),
  schema: z.int(),
  exportTime: z.iso.datetime({ offset: true }),
  /** The columns of each table. */
  tables: z.record(z.string(), z.array(z.string())),
  /** Everybody that its rows refer to. */
  users: z.array(z.guid()),
});
export type Header = Readonly<z.infer<typeof header>>;

const trailer = z.object({
  end: z.literal(true),
  /** Rows, by table. */
  rows: z.record(z.string(), z.int()),
  /** Of every byte before this line. */
  sha256: z.string(),
});
export type Trailer = Readonly<z.infer<typeof trailer>>;

/** A row as its JSON text: PostgreSQL reads what PostgreSQL has written, so that no number or time loses a digit. */
export interface FileRow {
  readonly table: string;
  readonly json: string;
}

export const headerLine = (fields: Omit<Header, 'format' | 'version'>): string =>
  `${JSON.stringify({ format: FORMAT, version: FORMAT_VERSION, ...fields })}\n`;

export const rowLine = ({ table, json }: FileRow): string => `{"table":"${table}","row":${json}}\n`;

export const trailerLine = (rows: Trailer['rows'], sha256: string): string =>
  `${JSON.stringify({ end: true, rows, sha256 })}\n`;

const ROW = /^\{"table":"([a-z_]+)","row":(\{.*\})\}$/s;

/** What is wrong with a file, for whoever has it. */
export class BadFile extends Error {}

/** A file that is being read. */
export interface ProjectFile {
  readonly header: Header;
  /** To be read to its end: only then is it known that nothing is missing or altered. @throws BadFile */
  readonly rows: AsyncGenerator<FileRow, Trailer>;
}

/**
 * Begins to read a file.
 * @throws BadFile saying what it is instead of a project's
 */
export const readFile = async (chunks: AsyncIterable<Buffer>): Promise<ProjectFile> => {
  const lines = linesOf(chunks);
  const first = await lines.next();
  if (first.done) throw new BadFile('the file is empty');
  const hash = createHash('sha256').update(first.value).update('\n');
  return { header: parseHeader(first.value.toString()), rows: readRows(lines, hash) };
};

const parseHeader = (line: string): Header => {
  const fields = parseJson(line) as { format?: unknown; version?: unknown } | null;
  if (fields?.format !== FORMAT) throw new BadFile('this is no file that `project export` made');
  if (fields.version !== FORMAT_VERSION) {
    throw new BadFile(`the file has format ${fields.version}, and this release reads ${FORMAT_VERSION}`);
  }
  const { data, error } = header.safeParse(fields);
  if (error) throw new BadFile(`the file's first line is damaged: ${error.issues[0]?.path.join('.')}`);
  return data;
};

async function* readRows(
  lines: AsyncGenerator<Buffer>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<FileRow, Trailer> {
  const counts: Record<string, number> = {};
  let number = 1;
  for await (const line of lines) {
    number += 1;
    const text = line.toString();
    const [, table, json] = ROW.exec(text) ?? [];
    if (table === undefined || json === undefined) {
      const { data: end } = trailer.safeParse(parseJson(text));
      if (!end) throw new BadFile(`line ${number} of the file is damaged`);
      checkEnd(end, counts, hash.digest('hex'));
      if (!(await lines.next()).done) throw new BadFile('the file goes on behind its end');
      return end;
    }
    if (!PROJECT_TABLES.some(({ name }) => name === table)) {
      throw new BadFile(`line ${number} of the file is of the table ${table}, which this release does not know`);
    }
    hash.update(line).update('\n');
    counts[table] = (counts[table] ?? 0) + 1;
    yield { table, json };
  }
  throw new BadFile('the file is cut short: its last line is missing');
}

const checkEnd = (end: Trailer, counts: Trailer['rows'], sha256: string): void => {
  const missing = PROJECT_TABLES.find(({ name }) => (end.rows[name] ?? 0) !== (counts[name] ?? 0));
  if (missing) throw new BadFile(`the file has not all rows of ${missing.name}, or more than it was made with`);
  if (end.sha256 !== sha256) throw new BadFile('the file is not what was exported: its hash is another');
};

const parseJson = (line: string): unknown => {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
};

/** Its lines without their ends; what stands behind the last end is a line too. */
async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_END); end >= 0; end = chunk.indexOf(LINE_END, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      start = end + 1;
      parts = [];
      bytes = 0;
    }
    parts.push(chunk.subarray(start));
    bytes += chunk.length - start;
    if (bytes > MAX_LINE_BYTES) throw new BadFile('a line of the file is longer than any row');
  }
  if (bytes > 0) yield Buffer.concat(parts);
}
