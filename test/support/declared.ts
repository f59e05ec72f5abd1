import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { latestVersion, MIGRATIONS, number, SCHEMA_FILE } from '../../src/migrator/files.ts';

/** What a person does to the declared schema. */
export interface Edit {
  /** A migration that is there before, with what it declares: for kinds of objects that the schema has none of. */
  readonly before?: { readonly sql: string; readonly undo: string };
  readonly replace?: readonly (readonly [string, string])[];
  /** A name that is another wherever it stands. */
  readonly everywhere?: readonly [string, string];
  /** Declared besides. */
  readonly add?: string;
}

export const NOTES = {
  sql: `create table notes (id bigint not null, title text not null, body text not null,
  constraint notes_pkey primary key (id), constraint notes_title_length check (char_length(title) < 100));
create index notes_by_title on notes (title);
create function note_title(i bigint) returns text language plpgsql as $$ begin
  return (select title from notes where id = i);
end $$;`,
  undo: 'drop function note_title; drop table notes;',
};

const LATEST = latestVersion();

/** A directory as a person has it after editing the declared schema. @returns it, and the newest migration's number in it */
export function prepare({ before, everywhere, replace = [], add = '' }: Edit): {
  directory: string;
  base: number;
} {
  const directory = mkdtempSync(join(tmpdir(), 'jeex-declared-'));
  after(() => rmSync(directory, { recursive: true }));
  cpSync(MIGRATIONS, directory, { recursive: true });
  const base = before ? LATEST + 1 : LATEST;
  if (before) {
    writeFileSync(join(directory, `${number(base)}.do.before.sql`), before.sql);
    writeFileSync(join(directory, `${number(base)}.undo.before.sql`), before.undo);
  }
  const declared = `${readFileSync(join(directory, SCHEMA_FILE), 'utf8')}\n${before?.sql ?? ''}\n`;
  const [old, now] = everywhere ?? ['', ''];
  const start = everywhere ? declared.replaceAll(new RegExp(`\\b${old}\\b`, 'g'), now) : declared;
  const edited = replace.reduce((text, [was, is]) => {
    assert.ok(text.includes(was), `the declared schema has no «${was}»`);
    return text.replace(was, () => is);
  }, start);
  writeFileSync(join(directory, SCHEMA_FILE), `${edited}${add}\n`);
  return { directory, base };
}
