import type { PoolerSettings } from '../db/pgbouncer.ts';
import { isOutdated, OUTDATED, type Reached, reachedBy } from '../db/pool-limits.ts';
import { isLoopback } from '../rpc/listen.ts';
import { type Check, type Fault, failed, faultOf, Skip, warning } from './check.ts';

const TLS_ON = new Set(['require', 'verify-ca', 'verify-full']);
/** What lets a client in without a proof that nobody can replay. */
const WEAK = new Set(['any', 'trust', 'plain', 'md5']);
const IGNORED = ['extra_float_digits', 'options'];
const IN_INI = 'in pgbouncer.ini';

const modeOf = ({ config, databases, users }: PoolerSettings, { database, role }: Reached): string =>
  users.find(({ name }) => name === role)?.pool_mode ??
  databases.find(({ name }) => name === database)?.pool_mode ??
  config.get('pool_mode') ??
  '';

const listensHereAlone = (config: PoolerSettings['config']): boolean =>
  (config.get('listen_addr') ?? '').split(',').every((address) => address === '' || isLoopback(address.trim()));

/** Whether PgBouncer reaches the database over a network, however near. */
const overNetwork = ({ databases }: PoolerSettings, { database }: Reached): boolean => {
  const host = databases.find(({ name }) => name === database)?.host ?? '';
  return host !== '' && !host.startsWith('/');
};

const tlsFaults = (settings: PoolerSettings, reached: Reached): readonly Fault[] => {
  const { config } = settings;
  const is = (name: string): string => config.get(name) ?? '';
  const faults: Fault[] = [];
  if (overNetwork(settings, reached)) {
    if (is('server_tls_sslmode') !== 'verify-full') {
      const says = `server_tls_sslmode is ${is('server_tls_sslmode')}: it does not verify the PostgreSQL it reaches`;
      faults.push(failed(says, `set server_tls_sslmode = verify-full and server_tls_ca_file ${IN_INI}`));
    }
    if (is('server_tls_protocols') !== 'tlsv1.3') {
      const says = `server_tls_protocols is ${is('server_tls_protocols')}`;
      faults.push(failed(says, `set server_tls_protocols = tlsv1.3 ${IN_INI}`));
    }
  }
  if (!TLS_ON.has(is('client_tls_sslmode'))) {
    const fault = listensHereAlone(config) ? warning : failed;
    const mend = `set client_tls_sslmode = require, client_tls_cert_file and client_tls_key_file ${IN_INI}`;
    faults.push(fault(`client_tls_sslmode is ${is('client_tls_sslmode')}: it takes clients without TLS`, mend));
  } else if (is('client_tls_protocols') !== 'tlsv1.3') {
    const says = `client_tls_protocols is ${is('client_tls_protocols')}`;
    faults.push(failed(says, `set client_tls_protocols = tlsv1.3 ${IN_INI}`));
  }
  return faults;
};

/** What of a PgBouncer's configuration does not fit the service, or is not safe. */
export const poolerFaults = (settings: PoolerSettings, reached: Reached): readonly Fault[] => {
  const { config } = settings;
  const mode = modeOf(settings, reached);
  const ignored = (config.get('ignore_startup_parameters') ?? '').split(',').map((name) => name.trim());
  const faults: (Fault | false)[] = [
    isOutdated(settings.version) && failed(OUTDATED, 'install the current release of PgBouncer'),
    mode !== 'transaction' &&
      failed(`pool_mode is ${mode}: the pool is not shared as it is planned`, `set pool_mode = transaction ${IN_INI}`),
    Number(config.get('max_prepared_statements') ?? 0) < 1 &&
      failed('max_prepared_statements is 0: prepared statements fail', `set max_prepared_statements = 200 ${IN_INI}`),
    !IGNORED.every((name) => ignored.includes(name)) &&
      failed(
        `ignore_startup_parameters is ${ignored.join(',') || 'empty'}`,
        `set ignore_startup_parameters = ${IGNORED.join(',')} ${IN_INI}`,
      ),
    WEAK.has(config.get('auth_type') ?? '') &&
      failed(`auth_type is ${config.get('auth_type')}`, `set auth_type = scram-sha-256 ${IN_INI}`),
  ];
  return [...faults.filter((fault) => fault !== false), ...tlsFaults(settings, reached)];
};

/** The PgBouncer before the database. */
export const pooler: Check = {
  group: 'pools',
  name: 'PgBouncer',
  run: async (patient) => {
    let settings: PoolerSettings;
    try {
      settings = await patient.askPooler();
    } catch (error) {
      if (error instanceof Skip) throw error;
      return { seen: 'its console does not answer', faults: [faultOf(error, 'see that PGBOUNCER_ADMIN_URL is right')] };
    }
    const reached = reachedBy((await patient.database()).appUrl);
    return { seen: `${settings.version}, ${modeOf(settings, reached)} mode`, faults: poolerFaults(settings, reached) };
  },
};
