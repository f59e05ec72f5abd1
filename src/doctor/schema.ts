import type { Standing } from '../migrator/preflight.ts';
import { type Check, type Finding, failed, Skip } from './check.ts';
import type { Patient } from './patient.ts';

/** What of the schema is missing or not as this release has it. */
export const judgeSchema = ({ version, latest, pending, ahead, problems }: Standing): Finding => {
  const missing = pending.map(({ version: number, name }) => `${number} ${name}`).join(', ');
  const serves = problems.length === 0 ? ', and can serve it' : '';
  return {
    seen: ahead
      ? `version ${version}, of a later release; this one knows up to ${latest}${serves}`
      : `version ${version}, this release needs ${latest}`,
    faults: [
      ...problems.map(({ what, advice }) => failed(what, advice)),
      ...(pending.length > 0
        ? [failed(`missing: ${missing}`, 'run `jeex-persistence migrate up`; with MIGRATE=auto the service does it')]
        : []),
    ],
  };
};

/** The migrations: applied, missing, altered afterwards, or of a later release. */
export const schema: Check = {
  group: 'database',
  name: 'schema',
  run: async (patient) => judgeSchema(await patient.schema()),
};

/** For checks that look at what migrations made. @throws Skip when something of it is missing */
export const needSchema = async (patient: Patient): Promise<void> => {
  const { pending } = await patient.schema();
  if (pending.length > 0) throw new Skip('the schema is not complete');
};
