/**
 * What a sealed value belongs to. It is bound to the ciphertext as associated data, so that an envelope that was copied to
 * another row, column or project does not open there.
 */
export interface Identity {
  readonly place: 'users.profile' | 'execution_payloads.input' | 'execution_payloads.output' | 'sealing_keys.secret';
  /** Null for what belongs to no project. */
  readonly project: string | null;
  /** The row's id, of which the last 8 bytes are bound; of a row to be made, any UUID that its id will end as. */
  readonly row: string;
}

export type PayloadKind = 'input' | 'output';

export const profileOf = (user: string): Identity => ({ place: 'users.profile', project: null, row: user });

export const payloadOf = (project: string, execution: string, kind: PayloadKind): Identity => ({
  place: `execution_payloads.${kind}`,
  project,
  row: execution,
});

/** The database's secret, as sealed under one key. */
export const secretUnder = (keyId: number): Identity => ({
  place: 'sealing_keys.secret',
  project: null,
  row: keyId.toString(16).padStart(32, '0'),
});

const bytesOf = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');

/** The last 8 bytes of a row's id: all that is known of it before the database has made the rest. */
export const tailOf = (row: string): Buffer => bytesOf(row).subarray(8);

/** The associated data: the place and a zero byte, the project's 16 bytes where there is one, the row's last 8. */
export const associatedData = ({ place, project, row }: Identity): Buffer =>
  Buffer.concat([Buffer.from(`${place}\0`), project === null ? Buffer.alloc(0) : bytesOf(project), tailOf(row)]);

/** For the operator: where the value is, and never what. */
export const describeIdentity = ({ place, project, row }: Identity): string =>
  `${place} of ${row}${project === null ? '' : ` in project ${project}`}`;
