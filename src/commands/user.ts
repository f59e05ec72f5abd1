import { profileOf } from '../sealing/identity.ts';
import { loadRing } from '../sealing/ring.ts';
import { type Export, exportUser } from '../users/export.ts';
import { tell, writeOut } from './output.ts';
import { asOwner } from './owner.ts';

export interface UserExportOptions {
  readonly id: string;
  /** Indented, for people. */
  readonly pretty: boolean;
}

/**
 * Prints what the database holds about a user as one JSON document: for the right of access. See `exportUser` for its bounds.
 * @throws Error when there is no such user, or its profile's key is not in the key ring
 */
export async function userExport({ id, pretty }: UserExportOptions): Promise<void> {
  await asOwner(async ({ config, database, client, signal }) => {
    const openProfile = (envelope: Buffer): unknown => {
      const ring = loadRing(config.encryptionKeys, database.secrets?.encryption ?? null);
      return JSON.parse(ring.open(envelope, profileOf(id)).toString());
    };
    const found = await exportUser(client, id, openProfile);
    if (found === null) throw new Error(`there is no user ${id}`);
    const { deleteTime } = found.user;
    if (deleteTime !== null) {
      tell(`user ${id} was erased at ${deleteTime}: nothing personal is left; what follows still names its id`);
    }
    await writeOut(documentOf(found, pretty), signal);
  });
}

/** One JSON object: `user`, and each list under its name. */
async function* documentOf({ user, lists }: Export, pretty: boolean): AsyncGenerator<string> {
  const lineAt = (depth: number): string => (pretty ? `\n${'  '.repeat(depth)}` : '');
  const colon = pretty ? ': ' : ':';
  const textAt = (depth: number, value: unknown): string =>
    pretty ? JSON.stringify(value, null, 2).replaceAll('\n', lineAt(depth)) : JSON.stringify(value);
  yield `{${lineAt(1)}"user"${colon}${textAt(1, user)}`;
  for (const [name, items] of lists) {
    yield `,${lineAt(1)}"${name}"${colon}[`;
    let separator = '';
    for await (const item of items) {
      yield `${separator}${lineAt(2)}${textAt(2, item)}`;
      separator = ',';
    }
    yield separator === '' ? ']' : `${lineAt(1)}]`;
  }
  yield `${lineAt(0)}}\n`;
}
