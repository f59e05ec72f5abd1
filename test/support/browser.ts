import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type BrowserContext, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { until } from './until.ts';

const PROGRAM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Nothing that a browser does of its own accord: what it asks for is the page's doing. */
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export const PHONE = { width: 375, height: 812 };
export const DESKTOP = { width: 1280, height: 900 };

/** A tab, and what went wrong in it. */
export interface Tab {
  readonly page: Page;
  /** What the console was told as an error, exceptions, and violations of the content security policy. */
  readonly faults: string[];
  /** Where requests went. */
  readonly urls: string[];
}

/** A browser with a profile of its own, until the file's tests have ended. */
export const useBrowser = async (options: BrowserContextOptions = {}) => {
  const profile = mkdtempSync(join(tmpdir(), 'jeex-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: PROGRAM,
    headless: true,
    args: ARGUMENTS,
    viewport: DESKTOP,
    ...options,
  });
  after(async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  });
  return { context, open: (url: string, prepare?: (page: Page) => Promise<unknown>) => openTab(context, url, prepare) };
};

const REPORT_VIOLATIONS = `document.addEventListener('securitypolicyviolation', (event) => {
  console.error('policy violated: ' + event.violatedDirective + ' by ' + (event.blockedURI || event.sourceFile));
})`;

const openTab = async (
  context: BrowserContext,
  url: string,
  prepare: (page: Page) => Promise<unknown> = async () => {},
): Promise<Tab> => {
  const page = await context.newPage();
  const faults: string[] = [];
  const urls: string[] = [];
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => urls.push(request.url()));
  await page.addInitScript(REPORT_VIOLATIONS);
  await prepare(page);
  await page.goto(url);
  return { page, faults, urls };
};

/** Fails when anything sticks out to the right of the window. */
export const assertFits = async (page: Page): Promise<void> => {
  const [wanted, there] = await page.evaluate<[number, number]>(
    '[document.documentElement.scrollWidth, document.documentElement.clientWidth]',
  );
  assert.ok(wanted <= there, `the page is ${wanted} pixels wide in a window of ${there}`);
};

/** Keeps a picture of the whole page, where PAGE_SCREENSHOTS names a folder. */
export const picture = async (page: Page, name: string): Promise<void> => {
  const folder = process.env.PAGE_SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `page-${name}.png`), fullPage: true });
};

/** What stands in an element. */
export const textOf = async (page: Page, selector: string): Promise<string> =>
  (await page.locator(selector).textContent()) ?? '';

/** Waits until an element says something. @throws Error with what it says instead */
export const untilText = async (page: Page, selector: string, wanted: RegExp): Promise<void> => {
  let text = '';
  const isThere = async () => {
    text = await textOf(page, selector);
    return wanted.test(text);
  };
  await until(isThere, `${selector} says ${wanted}`).catch((error: Error) => {
    throw new Error(`${error.message}; it says ${text}`);
  });
};

/** A fact of one of the page's lists, by its name. */
export const factOf = async (page: Page, list: string, name: string): Promise<string> => {
  const term = page.locator('dt', { hasText: new RegExp(`^${name}$`) });
  return (await page.locator(`#${list} > div`, { has: term }).locator('dd > span').textContent()) ?? '';
};

/** The cells of a table's row, by what its heading ends with; none when there is no such row. */
export const rowOf = async (page: Page, table: string, name: string): Promise<string[]> => {
  const rows = page.locator(`#${table} tbody tr`);
  const heading = page.locator('th', { hasText: new RegExp(` ${name}$`) });
  return await rows.filter({ has: heading }).locator('th, td').allTextContents();
};
