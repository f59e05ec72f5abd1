import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

const ITERATIONS = 4096;

/** Of as many iterations as are made here: one of fewer is weaker, and of more could take its time. */
const VERIFIER = new RegExp(`^SCRAM-SHA-256\\$${ITERATIONS}:([^$]+)\\$`);

/**
 * What the server stores instead of a password, so that the password itself never reaches the server or its log
 * (RFC 5803). Its salt is random, so it is another one each time; unless what is stored already is of this password.
 */
export function scramVerifier(password: string, stored?: string): string {
  const [, salt] = VERIFIER.exec(stored ?? '') ?? [];
  if (salt !== undefined) {
    const again = compute(password, Buffer.from(salt, 'base64'));
    if (again === stored) return again;
  }
  return compute(password, randomBytes(16));
}

function compute(password: string, salt: Buffer): string {
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256');
  const clientKey = createHmac('sha256', salted).update('Client Key').digest();
  const storedKey = createHash('sha256').update(clientKey).digest('base64');
  const serverKey = createHmac('sha256', salted).update('Server Key').digest('base64');
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}
