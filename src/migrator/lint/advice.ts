/** The safer ways, each in the steps of expand and contract. */

export const CONTRACT =
  'expand and contract: a release that no longer uses it goes out first, and what it holds is dropped by a later one, when ' +
  'no older release runs';

export const RENAME =
  'expand and contract: add it under the new name, write both and backfill, read the new one, and drop the old one in a ' +
  'later release';

export const RETYPE =
  'expand and contract: add a column of the new type, write both, backfill it with `run: batches`, read the new one, and ' +
  'drop the old one in a later release';

export const OVERWRITE =
  'write into a new column, or only where nothing stands yet (`where new_column is null`), so that the old values stay';

export const DELETE = 'keep the rows, marked as deleted, until a release later nobody asks for them';

export const VALIDATE_LATER =
  'add it `not valid`, mend the rows that do not fit with `run: batches`, and `validate constraint` in a later migration';

export const VALIDATED = 'mend the rows that do not fit in the migration before it, with `run: batches`';

export const NOT_NULL =
  'add `constraint … not null column not valid`, backfill with `run: batches`, and `validate constraint` in a later migration';

export const REQUIRED_COLUMN =
  'add it with a constant default, or nullable: backfill it with `run: batches`, and make it not null in a later release';

export const BUILD_APART =
  'find the doubles before, and build the index in a file of its own with `run: concurrently`; a constraint takes it over ' +
  '`using index`';

export const NEW_RULE =
  'a release that keeps the rule by itself goes out first, and the database insists on it when no older release writes';

export const KEEP_SIGNATURE =
  'expand and contract: make the new function beside it, and drop the old one when no release calls it any more';

export const RIGHTS = 'take a right away when no release that is still running uses it';

export const EXCLUDE =
  'no exclusion constraint can be `not valid`, nor take an index over: mend the rows that do not fit with `run: batches` ' +
  'before, and add it when nobody writes, or to a new table';

export const ARBITER =
  'a release whose `on conflict` does not name it goes out first, and it is dropped when no older release runs';

export const WALLS =
  'whoever is no jeex_owner or jeex_backup sees the rows of the project that it has entered, and no others: name the roles, ' +
  'and ask for `project_id`';

export const JUDGE =
  'write what can be judged; where there is no other way, say what it does to rows, readers and writers';

export const CALL = 'write its statements out, or say what it does to which rows';

export const IN_BATCHES =
  'update ranges of the key, in a file of its own with `run: batches`: the locks of one transaction last until its end';

export const COLLIDE = 'add `on conflict … do nothing`, so that rows that are there already do not make it fail';

export const SPELL_OUT =
  'write the statements out; where the names are known only at run time, say what it does and to what';
