import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { CATALOGUE_FILE, MIGRATIONS, SCHEMA_FILE } from '../src/migrator/files.ts';
import { generate, NotGenerated } from '../src/migrator/generate/generate.ts';
import { runCommand } from './support/command.ts';
import { type Edit, NOTES, prepare } from './support/declared.ts';
import { testCluster } from './support/postgres.ts';

describe('the declared schema', { concurrency: 2 }, () => {
  test('that is unchanged makes no migration, and brings a catalogue up to date that is not', async () => {
    const { directory } = prepare({ add: '-- renamed-from: name\n-- No line of a column.' });
    await assert.rejects(
      generate({ name: 'nothing', server: testCluster(), directory }),
      /belongs directly above the line/,
    );
    cpSync(join(MIGRATIONS, SCHEMA_FILE), join(directory, SCHEMA_FILE));
    const before = contents(directory);
    const generated = await generate({ name: 'nothing', server: testCluster(), directory });
    assert.deepEqual(generated, { files: [], catalogueChanged: false });
    assert.deepEqual(contents(directory), before);
    writeFileSync(join(directory, CATALOGUE_FILE), '{"version": 1, "objects": {}}');
    const again = await generate({ name: 'nothing', server: testCluster(), directory });
    assert.deepEqual(again, { files: [], catalogueChanged: true });
    assert.deepEqual(contents(directory), before);
  });

  test('with a mistake is answered with its line', async () => {
    const { directory } = prepare({
      add: '-- One line more.\ncreate table mistakes (\n  id bigint,\n  kind no_type);',
    });
    const lines = readFileSync(join(directory, SCHEMA_FILE), 'utf8').trimEnd().split('\n').length;
    const text = `schema.sql:${lines}: type "no_type" does not exist`;
    await assert.rejects(generate({ name: 'mistake', server: testCluster(), directory }), { message: text });
    writeFileSync(join(directory, SCHEMA_FILE), 'select 1;\n\nselekt 2;\n');
    const refused = { message: 'schema.sql:3: syntax error at or near "selekt"' };
    await assert.rejects(generate({ name: 'mistake', server: testCluster(), directory }), refused);
  });

  test('may keep the line of a rename that was made, and not one of what never was', async () => {
    const made: readonly [string, string] = ['  file_path text', '  -- renamed-from: path\n  file_path text'];
    const { directory } = prepare({ replace: [made] });
    assert.deepEqual((await generate({ name: 'stale', server: testCluster(), directory })).files, []);
    const never = prepare({
      replace: [['  file_path text', '  -- renamed-from: path\n  place text,\n  file_path text']],
    });
    const refused = { message: /^schema\.sql:\d+: no migration makes `path`/ };
    await assert.rejects(generate({ name: 'stale', server: testCluster(), directory: never.directory }), refused);
    const exchanged = prepare({
      replace: [
        [
          '  input_tokens bigint not null default 0,\n  output_tokens bigint not null default 0,',
          '  -- renamed-from: output_tokens\n  input_tokens bigint not null default 0,\n' +
            '  -- renamed-from: input_tokens\n  output_tokens bigint not null default 0,',
        ],
      ],
    });
    const both = {
      message: /both `output_tokens` and its new name: take the line out if the rename was made; names that/,
    };
    await assert.rejects(generate({ name: 'stale', server: testCluster(), directory: exchanged.directory }), both);
  });

  test('with a column where no migration can put it is answered with its line', async () => {
    const middle: readonly [string, string] = ['  rpc text,\n', '  trace text,\n  rpc text,\n'];
    const row: readonly [string, string] = [
      "'sweep', null, null, null)::call",
      "null, 'sweep', null, null, null)::call",
    ];
    const type = prepare({ replace: [middle, row] });
    const line = readFileSync(join(type.directory, SCHEMA_FILE), 'utf8').split('\n').indexOf('  trace text,') + 1;
    const message = new RegExp(`^schema\\.sql:${line}: call\\.trace stands before .*: move it to the end$`);
    await assert.rejects(generate({ name: 'order', server: testCluster(), directory: type.directory }), { message });
    const table = prepare({
      before: NOTES,
      replace: [
        [' title text', ' heading text'],
        ['char_length(title)', 'char_length(heading)'],
        ['on notes (title)', 'on notes (heading)'],
      ],
    });
    const hinted = {
      message: /notes\.heading stands before .* if it is title under another name, write above it/,
    };
    await assert.rejects(generate({ name: 'order', server: testCluster(), directory: table.directory }), hinted);
  });

  test('that would lose what rows hold, or leave a gap in what holds them, writes nothing', async () => {
    const lossy: Edit = {
      replace: [
        ['  agent_type text not null,\n  correlation_id', '  agent_type text collate "C" not null,\n  correlation_id'],
        [
          '  row_version bigint not null default 1,\n  project_revision',
          '  row_version text not null default 1,\n  project_revision',
        ],
        ['  current_step integer', '  current_step bigint'],
        [
          '  id uuid primary key default uuidv7(),\n  email text,',
          '  id uuid default uuidv7(),\n  primary key (id) include (name),\n  email text,',
        ],
      ],
    };
    const { message } = await assertNotWritten(lossy, /by hand/);
    for (const one of [
      /column agent_type of agent_executions would be dropped and made anew without what it holds/,
      /column row_version of agent_executions would be cast from bigint to text/,
      /constraint users_pkey of users changes and something else needs it, such as a foreign key/,
    ])
      assert.match(message, one);
    assert.doesNotMatch(message, /current_step/);
  });

  test('with what pg-delta does not know writes nothing, and says what is left over', async () => {
    const add = 'create statistics projects_kinds on status, visibility from projects;';
    await assertNotWritten(
      { add },
      /has to be written by hand.*statistics jeex\.projects_kinds is missing.*statistics object/s,
    );
  });

  test('that the lint has something against writes nothing, and hands out its drafts', async () => {
    const error = await assertNotWritten(
      { add: 'alter table exports add column note varchar(20);' },
      /the lint has something against it.*prefer-text-field/s,
    );
    assert.match(error.drafts[0]?.text ?? '', /alter table exports add column note character varying\(20\)/);
  });
});

async function assertNotWritten(edit: Edit, message: RegExp): Promise<NotGenerated> {
  const { directory } = prepare(edit);
  const before = contents(directory);
  const error = await generate({ name: 'refused', server: testCluster(), directory }).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof NotGenerated, String(error));
  assert.match(error.message, message);
  assert.deepEqual(contents(directory), before);
  return error;
}

const contents = (directory: string): Record<string, string> =>
  Object.fromEntries(readdirSync(directory).map((file) => [file, readFileSync(join(directory, file), 'utf8')]));

describe('the command', () => {
  test('shows what it would write, and writes nothing', async () => {
    const { code, out, err } = await runCommand(['migrate', 'generate', 'nothing_new', '--dry-run', '--json'], {});
    assert.equal(code, 0, err);
    assert.deepEqual(JSON.parse(out), { dryRun: true, files: [], catalogueChanged: false });
  });

  test('hands out as JSON why it writes nothing, and how far it came', async () => {
    const { directory } = prepare({ add: 'alter table exports add column note varchar(20);' });
    const tree = mkdtempSync(join(tmpdir(), 'jeex-tree-'));
    after(() => rmSync(tree, { recursive: true }));
    const root = join(MIGRATIONS, '..');
    for (const part of ['src', 'proto', 'package.json'])
      cpSync(join(root, part), join(tree, part), { recursive: true });
    cpSync(directory, join(tree, 'migrations'), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
    const entry = join(tree, 'src', 'jeex-persistence.js');
    const { code, out } = await runCommand(['migrate', 'generate', 'refused', '--json'], {}, '', entry);
    const { error, drafts } = JSON.parse(out);
    assert.equal(code, 1);
    assert.match(error, /the lint has something against it/);
    assert.match(drafts[0].text, /add column note character varying\(20\)/);
  });
});
