import { type Identity, type PayloadKind, payloadOf, profileOf } from './identity.ts';
import type { Sealing } from './sealing.ts';

/** A row whose sealed column waits for another key. */
export interface WaitingRow {
  /** The row's key, as `SealedColumn.after` takes it. */
  readonly key: readonly string[];
  readonly envelope: Buffer;
}

/** A sealed column of a table, as the owner of the schema reads and writes it over all projects. */
export interface SealedColumn {
  readonly table: 'users' | 'execution_payloads';
  readonly column: string;
  /** Comes before every key. */
  readonly start: readonly string[];
  /** Which rows are to be sealed again: $1 the key's id. */
  readonly waits: string;
  /** The next of these, in the order of their keys: $1 the key's id, $2 how many, $3 bytes, $4… after. */
  readonly waiting: string;
  /** Writes envelopes to the rows that still have the old one: $1 the old ones' SHA-256, $2 the new ones, $3… key and extras. */
  readonly write: string;
  readonly identity: (key: readonly string[]) => Identity;
  /** What else is written of a row, made from its plain bytes. */
  readonly extras: (sealing: Sealing, key: readonly string[], plain: Buffer) => readonly Buffer[];
}

const FIRST_ID = '00000000-0000-0000-0000-000000000000';

/** The rows a batch takes: they end where `bytes` are full, but for a first one that is larger. */
const batch = (table: string, column: string, waits: string, key: string, after: string): string => `
select array[${key}]::text[] as key, envelope from (
  select ${key}, ${column} as envelope, sum(octet_length(${column})) over (order by ${key}) as upto
  from ${table} where (${key}) > (${after}) and ${waits} order by ${key} limit $2) as waiting
where upto - octet_length(envelope) <= $3`;

// A profile without its MAC comes from a schema that was taken back below migration 011 and up again.
const PROFILE_WAITS = 'profile is not null and (sealing_key(profile) <> $1 or profile_mac is null)';
const DATA_WAITS = 'sealing_key(data) <> $1';

export const SEALED_COLUMNS: readonly SealedColumn[] = [
  {
    table: 'users',
    column: 'profile',
    start: [FIRST_ID],
    waits: PROFILE_WAITS,
    waiting: batch('users', 'profile', PROFILE_WAITS, 'id', '$4::uuid'),
    write: `update users u set profile = n.envelope, profile_mac = n.mac
      from unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::bytea[]) as n (old, envelope, id, mac)
      where u.id = n.id and sha256(u.profile) = n.old`,
    identity: ([user = '']) => profileOf(user),
    extras: ({ profileMac }, [user = ''], plain) => [profileMac(plain, user)],
  },
  {
    table: 'execution_payloads',
    column: 'data',
    start: [FIRST_ID, FIRST_ID, ''],
    waits: DATA_WAITS,
    waiting: batch(
      'execution_payloads',
      'data',
      DATA_WAITS,
      'project_id, execution_id, kind',
      '$4::uuid, $5::uuid, $6::text',
    ),
    write: `update execution_payloads p set data = n.envelope
      from unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::uuid[], $5::text[])
        as n (old, envelope, project_id, execution_id, kind)
      where (p.project_id, p.execution_id, p.kind) = (n.project_id, n.execution_id, n.kind) and sha256(p.data) = n.old`,
    identity: ([project = '', execution = '', kind]) => payloadOf(project, execution, kind as PayloadKind),
    extras: () => [],
  },
];
