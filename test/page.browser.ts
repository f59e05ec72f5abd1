import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { DatabaseStatus } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { VERSION } from '../src/version.ts';
import { assertFits, factOf, PHONE, picture, rowOf, textOf, untilText, useBrowser } from './support/browser.ts';
import { useTestDatabase } from './support/postgres.ts';
import { useProxy } from './support/proxy.ts';
import { newUser, useService } from './support/service.ts';
import { useIssuer } from './support/tokens.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const proxy = await useProxy(db.appUrl);
const service = await useService({ db, appUrl: () => proxy.url });
const url = `http://${service.http}/`;
const { open } = await useBrowser();

const SERVES = /^(Healthy|Degraded)$/;
const HEALTH = '**/jeex.persistence.v1.DatabaseService/GetDatabaseHealth';
const QUERIES = '**/jeex.persistence.v1.DatabaseService/ListSlowQueries';
const WORDS = new Map([
  [DatabaseStatus.HEALTHY, 'Healthy'],
  [DatabaseStatus.DEGRADED, 'Degraded'],
]);

test('the page shows what the service says of itself, and asks nobody else', async () => {
  const { page, faults, urls } = await open(url);
  await untilText(page, '#word', SERVES);
  const { health } = await service.database.getDatabaseHealth();
  assert.ok(health);
  await untilText(page, '#word', new RegExp(`^${WORDS.get(health.status)}$`));
  await untilText(page, '#about', new RegExp(`^version ${VERSION} · schema ${health.schemaVersion} · PostgreSQL `));
  assert.match(await textOf(page, '#about'), new RegExp(`${health.postgresVersion}$`));
  assert.match(await factOf(page, 'pool', 'In use'), new RegExp(`^\\d+ of ${health.servicePool?.limit}$`));
  assert.match(await factOf(page, 'database', 'Connections'), new RegExp(`^\\d+ of ${health.connections?.limit}$`));
  assert.match(await factOf(page, 'database', 'Size'), /^[\d.]+ MiB$/);
  assert.equal(await factOf(page, 'archive', 'WAL archiving'), health.walArchiving?.enabled ? 'on' : 'off');
  assert.equal(await factOf(page, 'archive', 'Last backup'), 'none known');
  assert.match(await factOf(page, 'schema', 'Last migration'), new RegExp(`^${health.schemaVersion} `));
  assert.match(await textOf(page, '#age'), /^measured (just now|\d+ s ago), at \d\d:\d\d:\d\d$/);
  assert.match(await textOf(page, '#since'), /^(since \d\d:\d\d:\d\d, )?for \d+ (s|min)( at least)?$/);
  assert.deepEqual(faults, []);
  assert.ok(urls.length > 10);
  for (const asked of urls) assert.equal(new URL(asked).origin, url.slice(0, -1), asked);
});

test('calls show up while the page is open', async () => {
  const { page } = await open(url);
  await untilText(page, '#word', SERVES);
  await newUser(service);
  await until(async () => (await rowOf(page, 'rpcs', 'CreateUser')).length === 6, 'the call has a row');
  const before = Number((await rowOf(page, 'rpcs', 'CreateUser'))[1]);
  for (let i = 0; i < 3; i += 1) await newUser(service);
  const counted = async () => Number((await rowOf(page, 'rpcs', 'CreateUser'))[1]);
  await until(async () => (await counted()) === before + 3, 'the calls are counted');
  assert.match((await rowOf(page, 'rpcs', 'CreateUser'))[4] ?? '', /^[\d.]+ m?s$/);
});

test('the page says when the database goes away, and when it is back', async () => {
  const { page, faults } = await open(url);
  await untilText(page, '#word', SERVES);
  proxy.down = true;
  await untilText(page, '#word', /^Unavailable$/);
  assert.match(await page.title(), /^Unavailable · /);
  assert.match(await textOf(page, '#since'), /^since \d\d:\d\d:\d\d, for \d+ s$/);
  await picture(page, 'unavailable');
  proxy.down = false;
  await untilText(page, '#word', SERVES);
  assert.deepEqual(
    faults.filter((fault) => !fault.includes('503')),
    [],
    'what needs the database is refused with 503 meanwhile',
  );
});

test('a service that does not answer is said to be away, with the last figures, and asked again', async () => {
  const { page } = await open(url);
  await untilText(page, '#word', SERVES);
  await page.route(HEALTH, (route) => route.abort());
  await untilText(page, '#word', /^Not reachable$/);
  assert.match(await textOf(page, '#since'), /goes on trying/);
  assert.match(await textOf(page, '#age'), /^What is below is of \d\d:\d\d:\d\d: measured/);
  assert.ok(await page.locator('#figures').isVisible());
  await picture(page, 'away');
  await page.unroute(HEALTH);
  await untilText(page, '#word', SERVES);
});

test('the page fits a phone and a desk, by day and by night', async () => {
  const { page } = await open(url);
  await untilText(page, '#word', SERVES);
  await untilText(page, '#about', /schema/);
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await assertFits(page);
    await picture(page, `desktop-${colorScheme}`);
  }
  await page.setViewportSize(PHONE);
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await assertFits(page);
    await picture(page, `phone-${colorScheme}`);
  }
});

const HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;';
const hostileHealth = {
  status: 'DATABASE_STATUS_DEGRADED',
  checkTime: new Date().toISOString(),
  postgresVersion: HOSTILE,
  connections: { byState: { [HOSTILE]: '1' }, limit: '10' },
  alerts: [{ name: HOSTILE, description: HOSTILE, unit: HOSTILE, value: 2, threshold: 1, severity: HOSTILE }],
  rpcs: [{ method: 'a.Hostile/<script>1<script>', calls: '1' }],
  pgbouncerPools: [{ database: HOSTILE, user: HOSTILE, maxWait: '0s' }],
  replicas: [{ name: HOSTILE, state: HOSTILE }],
};
const hostileQuery = {
  queryId: '1',
  name: HOSTILE,
  statement: HOSTILE,
  genericPlan: HOSTILE,
  calls: '9223372036854775807',
};
const LONG_WORD = 'x'.repeat(500);
const longQuery = { queryId: '2', statement: LONG_WORD, calls: '1' };

test('text from outside stays text, and long words fit', async () => {
  const { page, faults } = await open(url, async (page) => {
    await page.route(HEALTH, (route) => route.fulfill({ json: { health: hostileHealth } }));
    await page.route(QUERIES, (route) => route.fulfill({ json: { queries: [hostileQuery, longQuery] } }));
    await page.setViewportSize(PHONE);
  });
  await untilText(page, '#word', /^Degraded$/);
  await until(async () => (await page.locator('#queries details').count()) === 2, 'the queries are shown');
  await page.locator('#queries summary').first().click();
  const shown = ['#about', '#alerts', '#rpcs', '#pooler', '#replicas', '#database', '#queries'];
  for (const id of shown) assert.ok((await textOf(page, id)).includes('<script>'), id);
  assert.equal(await page.locator('img, main script').count(), 0);
  assert.match(await page.title(), /^Degraded/);
  await assertFits(page);
  assert.deepEqual(faults, []);
});

/** What a window does that is covered, or minimised. */
const setHidden = (page: Page, hidden: boolean) =>
  page.evaluate(`Object.defineProperty(document, 'hidden', { configurable: true, get: () => ${hidden} });
    document.dispatchEvent(new Event('visibilitychange'))`);

test('a page that nobody sees asks nothing, and what was opened stays open when it is asked again', async () => {
  const { page, urls } = await open(url, async (page) => {
    await page.clock.install();
    await page.route(QUERIES, (route) => route.fulfill({ json: { queries: [longQuery, hostileQuery] } }));
  });
  const asked = (method: string) => urls.filter((one) => one.endsWith(method)).length;
  await until(async () => (await page.locator('#queries details').count()) === 2, 'the queries are shown');
  const first = page.locator('#queries details').first();
  await first.locator('summary').click();
  await until(async () => {
    await page.clock.fastForward(5_000);
    return asked('ListSlowQueries') > 1;
  }, 'the queries are asked for again');
  assert.equal(await first.getAttribute('open'), '');
  assert.ok(await page.evaluate("document.activeElement === document.querySelector('#queries summary')"));

  await setHidden(page, true);
  const before = asked('GetDatabaseHealth');
  await page.clock.runFor(60_000);
  assert.equal(asked('GetDatabaseHealth'), before);
  await setHidden(page, false);
  await until(() => asked('GetDatabaseHealth') > before, 'the health is asked for at once');
});

test('where authentication is on, the page asks for a token, and keeps it in its tab alone', async () => {
  const issuer = await useIssuer();
  const guarded = await useService({ db, env: issuer.env });
  const { page, urls } = await open(`http://${guarded.http}/`);
  const enter = async (token: string) => {
    await page.locator('#token').fill(token);
    await page.locator('#door button').click();
  };
  await untilText(page, '#word', /^A token is needed$/);
  assert.ok(!(await page.locator('#figures').isVisible()));
  await picture(page, 'token');

  await enter('två ord');
  await untilText(page, '#door-why', /one word/);
  await enter('garbage');
  await untilText(page, '#door-why', /refuses this token: .*compact form/);
  await enter(await issuer.token({ scope: 'read write' }));
  await untilText(page, '#door-why', /lacks the scope monitor/);
  assert.ok(!(await page.locator('#figures').isVisible()));

  const token = await issuer.token({ scope: 'monitor' });
  await enter(`Bearer ${token}`);
  await untilText(page, '#word', SERVES);
  assert.ok(await page.locator('#figures').isVisible());
  assert.ok(!(await page.locator('#door').isVisible()));
  assert.equal(await page.locator('#token').inputValue(), '');
  assert.equal(await page.evaluate('localStorage.length + document.cookie.length'), 0);
  assert.equal(await page.evaluate('Object.values(sessionStorage).join()'), token);
  for (const asked of urls) assert.ok(!asked.includes(token.slice(0, 20)), 'a token in a URL is in logs');
  assert.equal(page.url(), `http://${guarded.http}/`);

  await page.reload();
  await untilText(page, '#word', SERVES);
  await page.locator('#forget').click();
  await untilText(page, '#word', /^A token is needed$/);
  assert.equal(await page.evaluate('sessionStorage.length'), 0);
  assert.equal(await textOf(page, '#database'), '', 'nothing stays of what the token showed');
});
