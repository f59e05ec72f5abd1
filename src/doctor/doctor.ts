import { archive } from './archive.ts';
import { certificate } from './certificate.ts';
import { type Check, type Result, runChecks } from './check.ts';
import { clock } from './clock.ts';
import { encryption } from './encryption.ts';
import { environment } from './environment.ts';
import { passwords } from './passwords.ts';
import type { Patient } from './patient.ts';
import { plan } from './plan.ts';
import { pooler } from './pooler.ts';
import { direct, listener, reach } from './reach.ts';
import { audited, definitions, quietLog, role, walls } from './role.ts';
import { roles } from './roles.ts';
import { schema } from './schema.ts';
import { durability, extensions, locale, version } from './server.ts';
import { tokens } from './tokens.ts';
import { transport } from './transport.ts';

/** In the order they are done: what stands in the way of others comes first. */
export const CHECKS: readonly Check[] = [
  ...[environment, certificate, tokens],
  ...[reach, direct, listener, transport, clock, schema, encryption],
  ...[role, walls, definitions, roles, passwords, quietLog, audited],
  ...[version, extensions, durability, locale, archive],
  ...[pooler, plan],
];

/**
 * Looks at everything a deployment needs, and changes nothing.
 * @param tell hears of each result as it comes
 * @throws the signal's reason after an interruption
 */
export const runDoctor = (
  patient: Patient,
  tell: (result: Result) => void,
  signal: AbortSignal,
): Promise<readonly Result[]> => runChecks(CHECKS, patient, tell, signal);
