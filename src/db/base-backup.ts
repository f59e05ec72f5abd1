/**
 * Whatever made the backup, PostgreSQL leaves a backup history file in pg_wal when one ends on a primary that archives its
 * WAL, and removes it at the end of the next one.
 */
export const LAST_BASE_BACKUP =
  "(select max(modification) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}[.][0-9A-F]{8}[.]backup$')";

/** Whether the role may ask for `LAST_BASE_BACKUP`: else PostgreSQL refuses the statement it stands in. */
export const MAY_SEE_BASE_BACKUP = "has_function_privilege('pg_catalog.pg_ls_waldir()', 'execute')";
