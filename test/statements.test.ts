import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import { z } from 'zod';
import { registry } from '../src/db/statement.ts';
import { connectAs, useOwner, useTestDatabase } from './support/postgres.ts';
import { type Checked, readCatalogue, statementFaults } from './support/statement-faults.ts';

const SOURCE = new URL('../src/', import.meta.url);
const DEFINES =
  /import \{[^}]*\b(?:statement|read|readEach|pointRead|pointOf|write)\b[^}]*\} from '[./a-z]*\/statement\.ts'/;

/** The names that each module defines statements under; all are loaded. */
const defined = new Map<string, readonly string[]>();
for (const file of readdirSync(SOURCE, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))) {
  const text = readFileSync(new URL(file, SOURCE), 'utf8');
  if (!DEFINES.test(text) && !file.endsWith('/sql.ts')) continue;
  defined.set(
    file,
    [...text.matchAll(/^ {2}name: '([a-z_.]+)',$/gm)].map(([, name = '']) => name),
  );
  await import(new URL(file, SOURCE).href);
}
const statements = [...registry.values()];

/** The names of statements, and of those that their askers share. */
const withShared = (names: readonly string[]): string[] =>
  names.flatMap((name) => [name, ...(registry.get(name)?.shared ? [`${name}_shared`] : [])]);

const nullable = (column: string): string => `${column} can be null, which its schema does not take`;
const type = (column: string, name: string): string => `${column} is ${name}, which its schema does not take`;

/** What a row schema takes for granted, and no table says: the migrator alone writes its own, always whole rows. */
const ASSUMED = new Set(['name', 'checksum', 'time'].map((name) => `database.migrations: ${nullable(name)}`));

const db = await useTestDatabase();
const app = await connectAs(db.urlAs('app'));
const owner = await useOwner(db);

/** The faults of statements, as a client's role, each with its statement's name. */
const faultsOf = async (client: Client, checked: readonly (Checked & { name: string })[]): Promise<string[]> => {
  const catalogue = await readCatalogue(client);
  const faults: string[] = [];
  for (const statement of checked) {
    const found = await statementFaults(client, catalogue, statement);
    faults.push(...found.map((fault) => `${statement.name}: ${fault}`));
  }
  return faults.filter((fault) => !ASSUMED.has(fault)).sort();
};

describe('the service’s statements', () => {
  it('are all known, from every module that defines some', () => {
    for (const [file, names] of defined) assert.ok(names.length > 0, `${file} defines no statement`);
    assert.deepEqual([...registry.keys()].sort(), withShared([...defined.values()].flat()).sort());
  });

  it('name every column where their text is said to fix them: no type or function widens their rows', () => {
    const fixed = statements.filter((statement) => statement.fixed);
    assert.ok(fixed.length > 0);
    for (const { name, text } of fixed) {
      // What the frame of a read adds, and what one picks its columns from.
      const stars = text.replaceAll(/\b(?:fenced|query|o)\.\*/g, '').match(/\S*\*/g) ?? [];
      assert.deepEqual(stars, [], name);
    }
  });

  it('fit the schema that the migrations make, parameters and columns, as the service runs them', async () => {
    assert.deepEqual(await faultsOf(app, statements), []);
  });

  it('fit it also as the owner’s commands run some of them', async () => {
    const sealing = statements.filter(({ name }) => name.startsWith('sealing.'));
    assert.ok(sealing.length > 0);
    assert.deepEqual(await faultsOf(owner, sealing), []);
  });
});

describe('a statement that does not fit', () => {
  const base = registry.get('exports.get') as Checked;
  const row = base.row as z.ZodObject;
  const ROWS: readonly (readonly [string, Partial<Checked>, readonly string[]])[] = [
    ['a number for a bigint', { row: row.extend({ download_count: z.number() }) }, [type('download_count', 'int8')]],
    ['a number for a text', { row: row.extend({ status: z.number() }) }, [type('status', 'text')]],
    ['text for JSON', { row: row.extend({ manifest: z.string() }) }, [type('manifest', 'jsonb')]],
    ['anything for a text', { row: row.extend({ file_path: z.unknown() }) }, [type('file_path', 'text')]],
    ['values of another kind', { row: row.extend({ status: z.literal([1, 2]) }) }, [type('status', 'text')]],
    ['never null', { row: row.extend({ complete_time: z.bigint() }) }, [nullable('complete_time')]],
    ['a column too many', { row: row.extend({ sealed: z.boolean() }) }, ['sealed is read and not answered']],
    ['a column too few', { row: row.omit({ caller: true }) }, ['caller is answered and not read']],
    ['another parameter', { params: { ...base.params, id: 'text' } }, ['$id is uuid, declared text']],
    ['a parameter too many', { params: { ...base.params, more: 'int4' } }, ['$more is not used']],
  ];
  for (const [what, change, expected] of ROWS) {
    it(`is told by its row schema or parameters: ${what}`, async () => {
      const faults = await faultsOf(app, [{ ...base, ...change, name: 'changed' }]);
      assert.deepEqual(
        faults,
        expected.map((fault) => `changed: ${fault}`),
      );
    });
  }

  const calls = statements.filter(({ text }) => text.includes('::call')).map(({ name }) => name);
  const named = (entity: string, verbs: string): string[] => verbs.split(' ').map((verb) => `${entity}.${verb}`);
  const runs = named('executions', 'get list list_correlated create start claim heartbeat end');
  const versions = named('documents', 'append restore get get_at batch_get list list_versions search');
  const files = named('exports', 'create start claim end record_download get list');
  const users = named('users', 'get get_by_email batch_get list create update record_login delete');

  /** Changes of the schema that touch different columns, and which statements they leave with which fault. */
  const CHANGES: readonly (readonly [string, Readonly<Record<string, readonly string[]>>])[] = [
    [
      'alter table users rename column last_login_time to last_seen_time',
      { 'last_login_time is read and not answered': users },
    ],
    [
      'alter table agent_executions alter column attempt type bigint',
      {
        [type('attempt', 'int8')]: runs,
        [type('run_attempt', 'int8')]: ['executions.complete'],
        [type('execution_attempt', 'int8')]: ['changes.timeline'],
      },
    ],
    [
      'alter table document_versions alter column grammar_score type numeric',
      {
        [type('grammar_score', 'numeric')]: [...versions, 'executions.complete', 'exports.get_entry'],
        [type('version_grammar_score', 'numeric')]: ['changes.timeline'],
      },
    ],
    [
      'alter table exports alter column file_path drop not null',
      { [nullable('file_path')]: files, [nullable('export_file_path')]: ['changes.timeline'] },
    ],
    ['alter table document_versions add column note text', { 'note is answered and not read': ['exports.get_entry'] }],
    ['alter type call alter attribute rpc type bytea', { '$rpc is text where bytea is taken': calls }],
    ['alter table sealing_keys rename column retired to old', { 'column "retired" does not exist': ['sealing.keys'] }],
    [
      'revoke select on project_members from jeex_app',
      { 'permission denied for table project_members': ['projects.list_members'] },
    ],
    [
      `drop function index_heads;
       create function index_heads(most integer) returns bigint language sql as 'select 0::bigint';
       grant execute on function index_heads to jeex_app`,
      { [type('indexed', 'int8')]: ['documents.index_heads'] },
    ],
    [
      `set role jeex_system; drop function sweep; reset role;
       create function sweep(most integer, out ended integer, out failure text) language sql as 'select 0, null::text'`,
      { 'column "swept" does not exist': ['executions.sweep'] },
    ],
    [
      `drop function register_sealing_key;
       create function register_sealing_key(id integer, envelope text, first boolean) returns boolean return true`,
      { 'function register_sealing_key(integer, bytea, boolean) does not exist': ['sealing.register'] },
    ],
  ];

  it('is named after each change of the schema that it misses, and no other is', async () => {
    for (const [change] of CHANGES) await owner.query(change);
    const expected = CHANGES.flatMap(([, faults]) =>
      Object.entries(faults).flatMap(([fault, names]) => withShared(names).map((name) => `${name}: ${fault}`)),
    );
    assert.deepEqual(await faultsOf(app, statements), expected.sort());
  });
});
