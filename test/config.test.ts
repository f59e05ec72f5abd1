import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { Client } from 'pg';
import { type Config, ConfigError, loadConfig } from '../src/config.ts';
import { connectionString } from '../src/db/connection.ts';
import { withLogin } from '../src/db/roles.ts';
import { VARIABLES } from '../src/variables.ts';

const url = 'postgres://jeex_app:pa55word@db.example:5432/jeex';

const GIVEN = { DATABASE_URL: url, MIGRATE: 'check', ENCRYPTION_KEYS: '1:x' };
const AUTH = { AUTH_JWKS: 'keys.json', AUTH_ISSUER: 'me' };
const ALGORITHMS = ['EdDSA', 'ES256', 'PS256', 'RS256'];
const folder = mkdtempSync(join(tmpdir(), 'jeex-config-'));
after(() => rmSync(folder, { recursive: true }));
const passwordFile = join(folder, 'jeex_app');
writeFileSync(passwordFile, 'a/b:c@d?%2F\n');

const TLS = { TLS_CERT_FILE: 'a', TLS_KEY_FILE: 'b' };

suite('the configuration', () => {
  const understood: [Record<string, string>, Partial<Config>][] = [
    [{}, { grpcListen: { host: '127.0.0.1', port: 50051 }, httpListen: { host: '127.0.0.1', port: 8080 } }],
    [
      {},
      { healthListen: null, databaseUrl: null, migrate: 'auto', poolSize: 10, logLevel: 'info', allowedOrigins: [] },
    ],
    [{}, { dataDir: join(process.cwd(), '.data'), shutdownGraceSeconds: 30 }],
    [
      { GRPC_LISTEN: '', LOG_LEVEL: '' },
      { grpcListen: { host: '127.0.0.1', port: 50051 }, logLevel: 'info' },
    ],
    [{ GRPC_LISTEN: '[::1]:50051' }, { grpcListen: { host: '::1', port: 50051 } }],
    [{ GRPC_LISTEN: 'localhost:0', HTTP_LISTEN: 'localhost:0' }, { grpcListen: { host: 'localhost', port: 0 } }],
    [{ HEALTH_LISTEN: '0.0.0.0:50052' }, { healthListen: { host: '0.0.0.0', port: 50052 } }],
    [
      { ALLOWED_ORIGINS: 'https://a.example, http://localhost:3000' },
      { allowedOrigins: ['https://a.example', 'http://localhost:3000'] },
    ],
    [{}, { auth: null, tls: null, encryptionKeys: null, access: { target: null, reads: 'all', full: 'drop' } }],
    [AUTH, { auth: { jwks: 'keys.json', issuer: 'me', audience: ['jeex-persistence'], algorithms: ALGORITHMS } }],
    [
      { ...AUTH, ...TLS, GRPC_LISTEN: '0.0.0.0:50051' },
      { tls: { certFile: 'a', keyFile: 'b', clientCaFile: null, clientNames: [] } },
    ],
    [
      { ...TLS, TLS_CLIENT_CA_FILE: 'c', TLS_CLIENT_NAMES: 'a.example, spiffe://b/c' },
      { tls: { certFile: 'a', keyFile: 'b', clientCaFile: 'c', clientNames: ['a.example', 'spiffe://b/c'] } },
    ],
    [{ ...AUTH, ALLOW_PLAINTEXT: 'true', HTTP_LISTEN: '0.0.0.0:80' }, { httpListen: { host: '0.0.0.0', port: 80 } }],
    [{ ENCRYPTION_KEYS_FILE: '/keys' }, { encryptionKeys: { file: '/keys' } }],
    [{ ENCRYPTION_KEYS: '1:x' }, { encryptionKeys: { text: '1:x' } }],
    [
      { ...GIVEN, DATABASE_PASSWORD_FILE: '/app' },
      { databaseUrl: 'postgres://jeex_app@db.example:5432/jeex?password_file=%2Fapp' },
    ],
    [GIVEN, { databaseUrl: url, migrationDatabaseUrl: null, migrate: 'check' }],
    [{ ...GIVEN, MIGRATE: '' }, { migrate: 'check' }],
    [
      { ...GIVEN, MIGRATION_DATABASE_URL: url, MIGRATE: '' },
      { migrationDatabaseUrl: url, migrate: 'check' },
    ],
    [{ ...GIVEN, MIGRATION_DATABASE_URL: url, MIGRATE: 'auto' }, { migrate: 'auto' }],
    [{ MIGRATE: 'check' }, { migrate: 'check' }],
    [{ DATA_DIR: '/var/data' }, { dataDir: '/var/data' }],
    [{ SHUTDOWN_GRACE_SECONDS: '0' }, { shutdownGraceSeconds: 0, shutdownDelaySeconds: 0 }],
    [{ SHUTDOWN_DELAY_SECONDS: '5' }, { shutdownDelaySeconds: 5 }],
    [{}, { alerts: [] }],
    [
      { ALERTS: 'connections.warning=0.7, connections.for=30,lock_wait=off' },
      {
        alerts: [
          { rule: 'connections', key: 'warning', value: 0.7 },
          { rule: 'connections', key: 'for', value: 30 },
          { rule: 'lock_wait', key: 'off' },
        ],
      },
    ],
    [{ ALERTS: 'replica_missing.critical=2' }, { alerts: [{ rule: 'replica_missing', key: 'critical', value: 2 }] }],
  ];
  for (const [env, expected] of understood) {
    test(`understands ${JSON.stringify(env)}: ${Object.keys(expected)}`, () => {
      const config = loadConfig(env);
      for (const [name, value] of Object.entries(expected)) assert.deepEqual(config[name as keyof Config], value, name);
    });
  }

  const refused: Record<keyof typeof VARIABLES, string[]> = {
    GRPC_LISTEN: [
      '50051',
      'localhost',
      'localhost:65536',
      '::1:50051',
      '[::g]:1',
      'http://localhost:1',
      '0.0.0.0:50051',
    ],
    HTTP_LISTEN: ['x', '[::]:8080', '10.0.0.1:8080', 'db.example:8080', '127.0.0.1:50051'],
    HEALTH_LISTEN: ['x', '127.0.0.1:8080'],
    AUTH_JWKS: ['http://login.example/jwks', 'ftp://login.example/jwks'],
    AUTH_ISSUER: [],
    AUTH_AUDIENCE: [',', 'a b'],
    AUTH_ALGORITHMS: ['none', 'HS256', 'RS256,', 'rs256'],
    TLS_CERT_FILE: [],
    TLS_KEY_FILE: [],
    TLS_CLIENT_CA_FILE: [],
    TLS_CLIENT_NAMES: [',', 'a b'],
    ALLOW_PLAINTEXT: ['yes', '1'],
    ALLOWED_ORIGINS: ['*', 'a.example', 'https://a.example/', 'https://a.example/path', 'ftp://a.example', 'null', ','],
    DATABASE_URL: [
      'db.example',
      'mysql://db.example/jeex',
      'postgres:///jeex',
      'postgres:///jeex?host=/run/postgresql&user=jeex_app',
      'postgres://db.example/jeex?user=jeex_app',
      'postgres://jeex_app@db.example/jeex?password=sekret',
      'postgres://db.example',
    ],
    MIGRATION_DATABASE_URL: [
      'x',
      'postgres://db.example/%zz',
      'postgres://db.example/',
      'postgres:///jeex?host=/run/postgresql&user=jeex_owner',
    ],
    DATABASE_PASSWORD_FILE: [],
    MIGRATION_DATABASE_PASSWORD_FILE: [],
    MIGRATE: ['yes', 'AUTO'],
    POOL_SIZE: ['0', '1', '1001', '1.5', '-1', '1e2', 'ten'],
    POOL_WAIT_MS: ['0', '60001', '5s'],
    MAX_REPLICAS: ['0', '1001'],
    PGBOUNCER_ADMIN_URL: ['pgbouncer', 'postgres://jeex_monitor@/pgbouncer'],
    PGBOUNCER_ADMIN_PASSWORD_FILE: [],
    MONITOR_DATABASE_URL: ['x', 'postgres://db.example/'],
    MONITOR_DATABASE_PASSWORD_FILE: [],
    LISTEN_DATABASE_URL: ['x', 'postgres://db.example/'],
    LISTEN_DATABASE_PASSWORD_FILE: [],
    MONITOR_INTERVAL_SECONDS: ['0', '3601', '30s'],
    SLOW_QUERY_MS: ['0', '1s'],
    ALERTS: [
      'connections',
      'connections=on',
      'connections.warning=80%',
      'connections.warning=80',
      'connections.warning=-1',
      'connections.warning=0.96',
      'cache_hit_ratio.critical=0.95',
      'connections.for=1.5',
      'connections.for=86401',
      'connections.clear=5',
      'disk.warning=0.7',
      'connections.for=5,connections.for=6',
      'connections.for=5,',
    ],
    METRICS_PUBLIC: ['yes', '1'],
    DATA_DIR: [],
    ENCRYPTION_KEYS: [],
    ENCRYPTION_KEYS_FILE: [],
    KEEP_PAYLOADS_DAYS: ['0', '36501', 'ever'],
    KEEP_EXPORTS_DAYS: ['0', '36501', '1.5'],
    KEEP_CHANGES_DAYS: ['0', '29', '36501', 'ever'],
    ACCESS_LOG: [],
    AUDIT_READS: ['none', 'ALL'],
    ACCESS_LOG_FULL: ['block'],
    SHUTDOWN_DELAY_SECONDS: ['-1', '601', '5s'],
    SHUTDOWN_GRACE_SECONDS: ['-1', '3601', '30s'],
    LOG_LEVEL: ['verbose', 'INFO'],
    ADMIN_DATABASE_URL: ['x', 'postgres:///postgres?host=/run/postgresql&user=postgres'],
    PASSWORDS_DIR: [],
  };
  for (const [name, values] of Object.entries(refused)) {
    for (const value of values) {
      test(`refuses ${name}=${value}`, () => {
        const { problems } = mistakes({ [name]: value });
        assert.equal(problems.length, 1);
        assert.match(problems[0] as string, new RegExp(`^${name}: expected `));
      });
    }
  }

  test('takes the password of a file through a socket too', async () => {
    const { databaseUrl } = loadConfig({
      ...GIVEN,
      DATABASE_URL: 'postgres://jeex_app@%2Frun%2Fpostgresql/jeex',
      DATABASE_PASSWORD_FILE: passwordFile,
    });
    const seen = new Client({ connectionString: await connectionString(databaseUrl as string) });
    assert.deepEqual(
      [seen.host, seen.user, seen.password, seen.database],
      ['/run/postgresql', 'jeex_app', 'a/b:c@d?%2F', 'jeex'],
    );
    const admin = withLogin('postgres://postgres:x@%2Frun%2Fpostgresql/postgres', 'jeex', 'jeex_owner', 'p%/');
    const owner = new Client({ connectionString: admin });
    assert.deepEqual(
      [owner.host, owner.user, owner.password, owner.database],
      ['/run/postgresql', 'jeex_owner', 'p%/', 'jeex'],
    );
    assert.match(
      mistakes({ DATABASE_URL: 'postgres:///jeex?host=/run/x' }).message,
      /a socket's directory .* %2F for each/,
    );
  });

  test('reports every mistake at once, with an example and without the values', () => {
    const error = mistakes({ GRPC_LISTEN: 'sekret-1', POOL_SIZE: 'sekret-2', DATABASE_URL: 'sekret-3' });
    assert.equal(error.problems.length, 3);
    for (const problem of error.problems) assert.match(problem, /for example/);
    assert.doesNotMatch(error.message, /sekret/);
  });

  test('asks for the owner when it has to migrate a given database', () => {
    assert.match(
      mistakes({ DATABASE_URL: url, MIGRATE: 'auto', ENCRYPTION_KEYS: '1:x' }).message,
      /MIGRATION_DATABASE_URL: .* or leave MIGRATE unset, and run `jeex-persistence migrate up` first/,
    );
    assert.doesNotMatch(mistakes({ DATABASE_URL: url, MIGRATE: 'auto' }).message, /pa55word/);
    const both = { DATABASE_URL: url, MIGRATION_DATABASE_URL: url, MIGRATE: 'auto', ENCRYPTION_KEYS: '1:x' };
    assert.equal(loadConfig(both).migrationDatabaseUrl, url);
    assert.equal(loadConfig({ DATABASE_URL: url }, 'command').databaseUrl, url);
  });

  const together: [Record<string, string>, RegExp][] = [
    [{ AUTH_JWKS: 'keys.json' }, /AUTH_ISSUER: expected/],
    [{ TLS_CERT_FILE: 'a' }, /TLS_KEY_FILE: expected/],
    [{ TLS_KEY_FILE: 'a' }, /TLS_CERT_FILE: expected/],
    [{ ...TLS, TLS_CLIENT_CA_FILE: 'c' }, /TLS_CLIENT_NAMES: expected/],
    [{ ...TLS, TLS_CLIENT_NAMES: 'c' }, /TLS_CLIENT_CA_FILE: expected/],
    [{ ENCRYPTION_KEYS: '1:x', ENCRYPTION_KEYS_FILE: '/keys' }, /ENCRYPTION_KEYS: expected to be unset/],
    [{ DATABASE_URL: url, MIGRATE: 'off' }, /ENCRYPTION_KEYS: .* because DATABASE_URL is set/],
    [{ GRPC_LISTEN: '0.0.0.0:50051' }, /GRPC_LISTEN: .* AUTH_JWKS is not set/],
    [{ ...AUTH, HTTP_LISTEN: '0.0.0.0:8080' }, /HTTP_LISTEN: .* TLS_CERT_FILE is not set/],
  ];
  for (const [env, expected] of together) {
    test(`refuses ${JSON.stringify(env)} as half of what is needed`, () => {
      assert.match(mistakes(env).message, expected);
      assert.equal(mistakes(env).problems.length, 1);
    });
  }

  test('.env.example lists every variable, in order and each understood', () => {
    const text = readFileSync(new URL('../.env.example', import.meta.url), 'utf8');
    const lines = [...text.matchAll(/^# ([A-Z_]+)=(.*)$/gm)];
    assert.deepEqual(
      lines.map((line) => line[1]),
      Object.keys(VARIABLES),
    );
    loadConfig(Object.fromEntries(lines.map((line) => [line[1], line[2]])));
  });
});

function mistakes(env: Record<string, string>): ConfigError {
  try {
    loadConfig(env);
  } catch (error) {
    assert(error instanceof ConfigError);
    return error;
  }
  throw new assert.AssertionError({ message: 'no mistake was found' });
}
