import type { X509Certificate } from 'node:crypto';
import { certificatesOf, daysLeft, namesOf, readMaterial, WARN_DAYS } from '../rpc/certificates.ts';
import { type Check, type Fault, failed, Skip, warning } from './check.ts';

const RENEW = 'put a new one in its place: the service takes it without a restart';

/** What is to be said of the ends of certificates. */
const endFaults = (variable: string, certificates: readonly X509Certificate[]): readonly Fault[] =>
  certificates.flatMap((certificate) => {
    const days = daysLeft(certificate);
    const ends = `${variable}: a certificate of ${certificate.subject.replaceAll('\n', ', ')}`;
    if (days < 0) return [failed(`${ends} ended on ${certificate.validToDate.toISOString()}`, RENEW)];
    return days < WARN_DAYS ? [warning(`${ends} ends in ${days} days`, RENEW)] : [];
  });

/** The files of the service's own TLS: whether they can be read, fit together, and have not ended. */
export const certificate: Check = {
  group: 'configuration',
  name: 'TLS files',
  run: async ({ config }) => {
    if (config.tls === null) throw new Skip('TLS_CERT_FILE is unset: the doors speak plaintext');
    const material = await readMaterial(config.tls).catch((error: Error) => error);
    if (material instanceof Error) return cannotBeUsed(material);
    try {
      const { chain, authorities } = certificatesOf(material);
      const names = namesOf(chain[0]).join(', ') || 'no name';
      return {
        seen: `${names}, until ${chain[0].validToDate.toISOString()}`,
        faults: [...endFaults('TLS_CERT_FILE', chain), ...endFaults('TLS_CLIENT_CA_FILE', authorities)],
      };
    } catch (error) {
      return cannotBeUsed(error as Error);
    }
  },
};

const cannotBeUsed = ({ message }: Error) => ({
  seen: 'they cannot be used',
  faults: [failed(message, 'give the files that belong together, in PEM, readable for the service')],
});
