import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PoolerSettings } from '../src/db/pgbouncer.ts';
import { judgeArchive } from '../src/doctor/archive.ts';
import type { Fault } from '../src/doctor/check.ts';
import { judgeClock } from '../src/doctor/clock.ts';
import { poolerFaults } from '../src/doctor/pooler.ts';
import { judgeSchema } from '../src/doctor/schema.ts';
import { AUTO_EXPLAIN, judgePlans } from '../src/doctor/statistics.ts';
import { judgeTransport } from '../src/doctor/transport.ts';

/** Faults by their severity, and what they say. */
const told = (faults: readonly Fault[]): string =>
  faults.map(({ severity, says, mend }) => `${severity}: ${says} -> ${mend}`).join('\n');

describe("the database's clock", () => {
  const CLOCKS: readonly (readonly [number, number, RegExp])[] = [
    [0, 1, /^$/],
    [999, 1, /^$/],
    [-999, 1, /^$/],
    [1002, 1, /^warning: the database's clock is 1\.0 s ahead of this machine's -> keep both by NTP/],
    [-5000, 10, /^warning: the database's clock is 5\.0 s behind this machine's/],
    [60_000, 1, /^warning/],
    [60_002, 1, /^failed: .* 60\.0 s ahead/],
    [-3_600_000, 1, /^failed: .* 3600\.0 s behind/],
    // A slow answer proves less.
    [1500, 2000, /^$/],
    [61_000, 4000, /^warning/],
  ];
  for (const [aheadMs, roundTripMs, says] of CLOCKS) {
    it(`${aheadMs} ms ahead, asked within ${roundTripMs} ms`, () =>
      assert.match(told(judgeClock([{ aheadMs, roundTripMs }]).faults), says));
  }

  it('is judged by the quickest answer', () => {
    const slow = { aheadMs: 5000, roundTripMs: 9000 };
    assert.match(told(judgeClock([slow, { aheadMs: 4000, roundTripMs: 2 }, slow]).faults), /4\.0 s ahead/);
  });
});

describe('the schema', () => {
  const standing = { version: 14, latest: 13, applied: [], pending: [], unfinished: [], ahead: true, problems: [] };

  it('of a later release is no fault as long as this one can serve it', () => {
    const { seen, faults } = judgeSchema(standing);
    assert.equal(seen, 'version 14, of a later release; this one knows up to 13, and can serve it');
    assert.deepEqual(faults, []);
  });

  it('of a later release that shuts this one out is a fault', () => {
    const { seen, faults } = judgeSchema({
      ...standing,
      problems: [{ code: 'AHEAD', what: 'too new', advice: 'update' }],
    });
    assert.equal(seen, 'version 14, of a later release; this one knows up to 13');
    assert.equal(told(faults), 'failed: too new -> update');
  });
});

describe('plans in the log of the server', () => {
  const SETTINGS: readonly (readonly [string, string | undefined, string | undefined, string, RegExp])[] = [
    ['a library that is not loaded', undefined, undefined, 'auto', /^$/],
    ['off', '-1', '-1', 'auto', /^$/],
    ['on, generic and without parameters', '1s', '0', 'force_generic_plan', /^$/],
    ['on, for given values', '1s', '0', 'auto', /^failed: auto_explain prints plans with values/],
    ['on, with parameters', '0', '-1', 'force_generic_plan', /^failed: auto_explain prints plans with values/],
  ];
  for (const [what, duration, parameters, plans, says] of SETTINGS) {
    it(`of auto_explain: ${what}`, () => {
      const [first = '', second = '', third = ''] = AUTO_EXPLAIN;
      const found = Object.entries({ [first]: duration, [second]: parameters, [third]: plans });
      const settings = found.filter((entry): entry is [string, string] => entry[1] !== undefined);
      assert.match(told(judgePlans(Object.fromEntries(settings))), says);
    });
  }
});

describe('a PgBouncer', () => {
  const CONFIG = {
    pool_mode: 'transaction',
    max_prepared_statements: '200',
    ignore_startup_parameters: 'extra_float_digits, options',
    auth_type: 'scram-sha-256',
    server_tls_sslmode: 'verify-full',
    server_tls_protocols: 'tlsv1.3',
    client_tls_sslmode: 'require',
    client_tls_protocols: 'tlsv1.3',
    listen_addr: '127.0.0.1',
  };
  const line = {
    name: 'jeex',
    host: 'postgres',
    pool_size: 20,
    reserve_pool_size: 5,
    pool_mode: null,
    max_connections: 0,
  };
  const user = { name: 'jeex_app', pool_size: null, reserve_pool_size: null, pool_mode: 'session' };
  const faultsOf = (config: Partial<typeof CONFIG>, more: Partial<PoolerSettings> = {}): string =>
    told(
      poolerFaults(
        {
          ...{ version: '1.26.1', databases: [line], users: [] },
          config: new Map(Object.entries({ ...CONFIG, ...config })),
          ...more,
        },
        { database: 'jeex', role: 'jeex_app' },
      ),
    );

  it('has no fault as it is deployed', () => assert.equal(faultsOf({}), ''));

  const FAULTS: readonly (readonly [string, Partial<typeof CONFIG>, Partial<PoolerSettings>, RegExp])[] = [
    ['too old', {}, { version: '1.26.0' }, /^failed: it is older than 1\.26\.1, .*CVE-2026-107350/],
    ['session mode', { pool_mode: 'session' }, {}, /^failed: pool_mode is session: .* -> set pool_mode = transaction/],
    [
      'session mode of the database',
      {},
      { databases: [{ ...line, pool_mode: 'session' }] },
      /^failed: pool_mode is session/,
    ],
    ['session mode of the user', {}, { users: [user] }, /^failed: pool_mode is session/],
    ['no prepared statements', { max_prepared_statements: '0' }, {}, /^failed: max_prepared_statements is 0/],
    [
      'startup parameters refused',
      { ignore_startup_parameters: 'extra_float_digits' },
      {},
      /^failed: .* -> set ignore_startup_parameters = extra_float_digits,options in pgbouncer.ini$/,
    ],
    ['trust', { auth_type: 'trust' }, {}, /^failed: auth_type is trust -> set auth_type = scram-sha-256/],
    ['a server nobody verifies', { server_tls_sslmode: 'require' }, {}, /^failed: server_tls_sslmode is require/],
    ['an older TLS to the server', { server_tls_protocols: 'secure' }, {}, /^failed: server_tls_protocols is secure/],
    ['an older TLS for clients', { client_tls_protocols: 'all' }, {}, /^failed: client_tls_protocols is all/],
    ['no TLS for clients, on one machine', { client_tls_sslmode: 'disable' }, {}, /^warning: client_tls_sslmode is/],
    [
      'no TLS for clients of the network',
      { client_tls_sslmode: 'prefer', listen_addr: '0.0.0.0' },
      {},
      /^failed: client_tls_sslmode is prefer/,
    ],
  ];
  for (const [what, config, more, says] of FAULTS) {
    it(`has a fault: ${what}`, () => {
      const said = faultsOf(config, more);
      assert.match(said, says);
      assert.equal(said.split('\n').length, 1);
    });
  }

  it('needs no TLS to a socket', () => {
    const databases = [{ ...line, host: '/run/postgresql' }];
    assert.equal(faultsOf({ server_tls_sslmode: 'disable', server_tls_protocols: 'secure' }, { databases }), '');
  });
});

describe('TLS to the database', () => {
  const HERE = { protocol: 'TLSv1.3', local: false, verified: true };
  const LAST = { protocol: 'TLSv1.3', local: false };
  const CLEAR = { protocol: null, local: false };
  const WAYS: readonly (readonly [
    string,
    typeof HERE | (typeof CLEAR & { verified: boolean }),
    typeof LAST | typeof CLEAR,
    RegExp,
  ])[] = [
    ['verified all the way', HERE, LAST, /^$/],
    ['in the clear on one machine', { ...CLEAR, local: true, verified: false }, { ...CLEAR, local: true }, /^$/],
    [
      'in the clear from here',
      { ...CLEAR, verified: false },
      LAST,
      /^failed: from here .* in the clear -> add sslmode=/,
    ],
    ['verified by nobody', { ...HERE, verified: false }, LAST, /^failed: nobody verifies/],
    ['in the clear behind the pooler', HERE, CLEAR, /^failed: PostgreSQL is reached in the clear -> hostssl/],
    ['older behind the pooler', HERE, { ...LAST, protocol: 'TLSv1.2' }, /^failed: PostgreSQL is reached by TLSv1\.2/],
  ];
  for (const [what, here, last, says] of WAYS) {
    it(what, () => assert.match(told(judgeTransport(here, last)), says));
  }
});

describe('the archive', () => {
  const ON = { archive_mode: 'on', archive_command: 'pgbackrest archive-push %p', archive_library: '' };
  const BY_LIBRARY = { ...ON, archive_command: '', archive_library: 'basic_archive' };
  const ARCHIVER = { archived: '7', last: '2026-11-23 05:00:00+00', failed_wal: null, failing: false };
  const saidOf = (settings: Readonly<Record<string, string>>, archiver: Partial<typeof ARCHIVER> | object = {}) =>
    told(judgeArchive(settings, { ...ARCHIVER, ...archiver }).faults);

  it('goes somewhere by a command, or a library', () => assert.equal(saidOf(ON) + saidOf(BY_LIBRARY), ''));

  it('has nothing to archive yet', () =>
    assert.deepEqual(judgeArchive(ON, { ...ARCHIVER, archived: '0', last: null }), {
      ...{ seen: 'on, nothing archived yet', faults: [] },
    }));

  it('fails', () =>
    assert.match(
      saidOf(ON, { failed_wal: '00000001000000000000000A', failing: true }),
      /^failed: archiving fails, last 00000001000000000000000A: the disk will fill up -> see/,
    ));

  it('is off', () => assert.match(saidOf({ archive_mode: 'off' }), /^warning: .* -> set archive_mode = on/));

  for (const archive_command of ['', '(disabled)', '/bin/true', 'true', ':', '/usr/bin/true ']) {
    it(`goes nowhere by "${archive_command}"`, () =>
      assert.match(saidOf({ ...ON, archive_command }), /^warning: .* -> set archive_command/));
  }
});
