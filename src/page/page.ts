import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import type { Page } from '../rpc/http.ts';

const FOLDER = new URL('./static/', import.meta.url);
const SHELL = 'page.html';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** The page runs its own files, asks its own service, is framed by nobody, and makes no HTML out of text. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  // A browser that kept the files of one release would run them against the next.
  'cache-control': 'no-store',
};

/**
 * The status page by its paths: the shell at `/`, what it loads under `/page/`. It holds no figure, and anybody may read
 * it: its script asks the service's own methods, with the reader's token.
 * @throws Error for a file of a kind that it does not serve
 */
export const pageRoutes = (): ReadonlyMap<string, Page> =>
  new Map(readdirSync(FOLDER).map((name) => [name === SHELL ? '/' : `/page/${name}`, fileOf(name)]));

const fileOf = (name: string): Page => {
  const type = TYPES[extname(name)];
  if (type === undefined) throw new Error(`the page has a file of an unknown kind: ${name}`);
  const body = readFileSync(new URL(name, FOLDER));
  const headers = { ...HEADERS, 'content-type': type, 'content-length': body.length };
  return (_, response) => {
    response.writeHead(200, headers);
    response.end(body);
  };
};
