import { TLSSocket } from 'node:tls';
import type { Client } from 'pg';
import { isLoopback } from '../rpc/listen.ts';
import { type Check, type Fault, failed } from './check.ts';

/** One way a connection takes: from here, or from a pooler, to PostgreSQL. */
interface Way {
  /** Null: in the clear. */
  readonly protocol: string | null;
  /** Whether it stays on one machine. */
  readonly local: boolean;
}

const VERIFY = 'sslmode=verify-full and sslrootcert=<the authority>';
const ONLY_13 =
  "hostssl in pg_hba.conf and ssl_min_protocol_version = 'TLSv1.3' in PostgreSQL; before it, server_tls_sslmode = " +
  'verify-full and server_tls_protocols = tlsv1.3 in PgBouncer';

const describe = ({ protocol, local }: Way): string => protocol ?? (local ? 'none, on one machine' : 'none');

const isLocal = (host: string | null): boolean => host === null || host.startsWith('/') || isLoopback(host);

const wayFromHere = (client: Client): Way & { verified: boolean } => {
  const { stream } = (client as unknown as { connection: { stream: unknown } }).connection;
  const tls = stream instanceof TLSSocket ? stream : null;
  return { protocol: tls?.getProtocol() ?? null, local: isLocal(client.host), verified: tls?.authorized ?? false };
};

/** The way into PostgreSQL, as its own session knows it: a pooler's, where one stands between. */
const wayIn = async (client: Client): Promise<Way> => {
  const { rows } = await client.query<{ protocol: string | null; host: string | null }>(
    `select s.version as protocol, host(inet_client_addr()) as host from pg_stat_ssl s where s.pid = pg_backend_pid()`,
  );
  return { protocol: rows[0]?.protocol ?? null, local: isLocal(rows[0]?.host ?? null) };
};

/** What is not as it should be on the ways to PostgreSQL. */
export const judgeTransport = (here: Way & { verified: boolean }, last: Way): readonly Fault[] => {
  const faults: Fault[] = [];
  if (here.protocol === null && !here.local) {
    faults.push(failed('from here to the database all is in the clear', `add ${VERIFY} to DATABASE_URL`));
  }
  if (here.protocol !== null && !here.verified) {
    faults.push(failed('nobody verifies whom this connection reaches', `put ${VERIFY} into DATABASE_URL`));
  }
  if (last.protocol === null ? !last.local : last.protocol !== 'TLSv1.3') {
    const says = last.protocol === null ? 'in the clear' : `by ${last.protocol}`;
    faults.push(failed(`PostgreSQL is reached ${says}`, ONLY_13));
  }
  return faults;
};

/** TLS on the way to the database, from here and from the pooler. */
export const transport: Check = {
  group: 'database',
  name: 'TLS',
  run: async (patient) => {
    const client = await patient.app();
    const here = wayFromHere(client);
    const last = await wayIn(client);
    const seen = `from here: ${describe(here)}; into PostgreSQL: ${describe(last)}`;
    return { seen, faults: judgeTransport(here, last) };
  },
};
