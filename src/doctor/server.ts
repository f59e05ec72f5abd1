import { type Check, type Fault, failed, warning } from './check.ts';
import { settingsOf } from './settings.ts';
import { judgeStatistics, STATEMENT_STATISTICS } from './statistics.ts';

const MAJOR = '18';
const IN_CONF = 'in postgresql.conf';

/** The release of PostgreSQL. */
export const version: Check = {
  group: 'server',
  name: 'PostgreSQL',
  run: async (patient) => {
    const { server_version: found = '' } = await settingsOf(await patient.app(), ['server_version']);
    const right = found.split('.')[0] === MAJOR;
    const mend = `use PostgreSQL ${MAJOR}: migrations and statements are written for it`;
    return { seen: found, faults: right ? [] : [failed(`it is no PostgreSQL ${MAJOR}`, mend)] };
  },
};

const EXTENSIONS = [
  {
    name: 'pgcrypto',
    schema: 'crypto',
    fault: (says: string) => failed(says, 'run `jeex-persistence bootstrap` again'),
  },
  {
    name: 'pg_stat_statements',
    schema: 'stats',
    fault: (says: string) =>
      warning(
        `${says}: slow statements are not counted`,
        'put it into shared_preload_libraries, then run `jeex-persistence bootstrap` as a superuser',
      ),
  },
] as const;

/** Extensions, each in the schema where it is looked for. */
export const extensions: Check = {
  group: 'server',
  name: 'extensions',
  run: async (patient) => {
    const client = await patient.app();
    const { rows } = await client.query<{ name: string; schema: string; version: string }>(
      `select e.extname as name, n.nspname as schema, e.extversion as version
       from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = any ($1) order by 1`,
      [EXTENSIONS.map(({ name }) => name)],
    );
    const faults = EXTENSIONS.flatMap(({ name, schema, fault }): Fault[] => {
      const found = rows.find((row) => row.name === name);
      if (found?.schema === schema) return [];
      return [fault(found ? `${name} is in the schema ${found.schema}, not ${schema}` : `${name} is missing`)];
    });
    faults.push(...judgeStatistics(await settingsOf(client, STATEMENT_STATISTICS)));
    return { seen: rows.map((row) => `${row.name} ${row.version}`).join(', ') || 'none', faults };
  },
};

/** Settings without which a write that was acknowledged can be lost, or damage goes unseen. */
const DURABLE: Readonly<Record<string, (value: string) => Fault | null>> = {
  fsync: (value) =>
    value === 'on' ? null : failed('fsync is off: a crash ruins the data', `set fsync = on ${IN_CONF}`),
  full_page_writes: (value) =>
    value === 'on'
      ? null
      : failed('full_page_writes is off: a crash can tear pages', `set full_page_writes = on ${IN_CONF}`),
  synchronous_commit: (value) =>
    value === 'off'
      ? failed('synchronous_commit is off: a crash loses acknowledged writes', `set synchronous_commit = on ${IN_CONF}`)
      : null,
  data_checksums: (value) =>
    value === 'on'
      ? null
      : warning(
          'without data checksums damage on the disk goes unseen',
          'stop the server, and run pg_checksums --enable',
        ),
};

export const durability: Check = {
  group: 'server',
  name: 'durability',
  run: async (patient) => {
    const found = await settingsOf(await patient.app(), Object.keys(DURABLE));
    const faults = Object.entries(DURABLE).flatMap(([name, judge]) => judge(found[name] ?? '') ?? []);
    return {
      seen: Object.entries(found)
        .map(([name, value]) => `${name} ${value}`)
        .join(', '),
      faults,
    };
  },
};

const PROVIDERS: Readonly<Record<string, string>> = { b: 'builtin', c: 'libc', i: 'icu' };

/** How text sorts: a system's library can sort otherwise after an update, under indexes that were made before it. */
export const locale: Check = {
  group: 'server',
  name: 'locale',
  run: async (patient) => {
    const client = await patient.app();
    const { rows } = await client.query<{ provider: string; locale: string | null; encoding: string }>(
      `select datlocprovider as provider, datlocale as locale, pg_encoding_to_char(encoding) as encoding
       from pg_database where datname = current_database()`,
    );
    const { provider = '', locale: name = null, encoding = '' } = rows[0] ?? {};
    const again = 'dump it into a database that `jeex-persistence bootstrap` makes';
    return {
      seen: `${PROVIDERS[provider] ?? provider} ${name ?? ''}, ${encoding}`,
      faults: [
        ...(provider === 'b' && name === 'C.UTF-8'
          ? []
          : [
              warning(
                'the provider is not builtin C.UTF-8: an update of the system can break indexes over text',
                again,
              ),
            ]),
        ...(encoding === 'UTF8' ? [] : [failed('the encoding is not UTF8', again)]),
      ],
    };
  },
};
