import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CODES } from '../src/rpc/errors.ts';
import { SERVICES } from '../src/service.ts';
import { VARIABLES } from '../src/variables.ts';
import { useService } from './support/service.ts';

const ROOT = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');
const readme = read('README.md');

/** What stands between fences of a language. */
const blocks = (language: string): string[] =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text ?? '');

/** The cells of the rows of the table that stands first below a heading. */
const table = (heading: string): string[][] => {
  const [, rest = ''] = readme.split(`\n${heading}\n`);
  const [rows = ''] = rest.match(/^\|(.|\n\|)*/m) ?? [];
  return rows
    .split('\n')
    .slice(2)
    .map((row) =>
      row
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
};

suite('the README', () => {
  test('lists every variable of the configuration, in order, with its default', () => {
    const expected = Object.entries(VARIABLES).map(([name, { schema, example }]) => {
      const unset = schema.safeParse(undefined).data;
      const hasDefault = unset !== undefined && !(Array.isArray(unset) && unset.length === 0);
      return [`\`${name}\``, hasDefault ? `\`${example}\`` : ''];
    });
    assert.deepEqual(
      table('## Configuration').map(([name, initial]) => [name, initial]),
      expected,
    );
  });

  test('lists every reason under its code', () => {
    const told = table('### Errors').flatMap(([code, reasons]) =>
      (reasons?.split(':')[0] ?? '').split(', ').map((reason) => [reason, code]),
    );
    assert.deepEqual(Object.fromEntries(told), CODES);
  });

  test('names scripts that are there', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...readme.matchAll(/npm (?:run ([\w:]+)|(start|test))/g)].map(
      ([, run, short]) => run ?? short ?? '',
    );
    assert.ok(named.length > 5);
    for (const name of named) assert.ok(scripts[name], `there is no script ${name}`);
  });

  test('names files that are there', () => {
    const named = [
      ...readme.matchAll(/(?<![\w/.-])(?:src|test|proto|migrations|\.ci)\/[\w./-]*|[\w.-]+\.(?:md|example)\b/g),
    ];
    const paths = new Set(named.map(([path]) => path.replace(/\.$/, '')));
    assert.ok(paths.size > 15);
    for (const path of paths) assert.ok(existsSync(new URL(path, ROOT)), `there is no ${path}`);
  });

  test('shows the help as it is', () => {
    const entry = fileURLToPath(new URL('src/jeex-persistence.js', ROOT));
    const { stdout } = spawnSync(process.execPath, [entry, '--help'], { encoding: 'utf8' });
    assert.ok(readme.includes(`$ node src/jeex-persistence.js --help\n${stdout.trimEnd()}\n`), stdout);
  });

  test('calls RPCs that are there', () => {
    const known = new Set(SERVICES.flatMap(({ name, methods }) => methods.map((method) => `${name}/${method.name}`)));
    const called = [
      ...blocks('sh')
        .join('\n')
        .matchAll(/\b\w+Service\/\w+/g),
    ].map(([name]) => name);
    assert.ok(called.length > 6);
    for (const name of called) assert.ok(known.has(name), `there is no ${name}`);
  });
});

suite('the examples of the README, run as they stand but for the ports', async () => {
  const service = await useService();
  const run = (text: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const script = text.replaceAll('127.0.0.1:50051', service.grpc).replaceAll('127.0.0.1:8080', service.http);
      execFile('bash', ['-c', `exec 2>&1\n${script}`], { timeout: 60_000 }, (error, output) =>
        // The last call of each example is refused, which grpcurl says with its exit code too.
        error && typeof error.code !== 'number' ? reject(error) : resolve(output),
      );
    });
  const example = (command: RegExp): string => blocks('sh').find((text) => command.test(text)) ?? '';
  const installed = (command: string): boolean => spawnSync(command, ['--version']).status === 0;

  test('with grpcurl', { skip: installed('grpcurl') ? false : 'grpcurl is not installed' }, async () => {
    const output = await run(example(/^grpcurl -/m));
    assert.match(output, /^jeex\.persistence\.v1\.DocumentService$/m);
    assert.match(output, /rpc AppendVersion /);
    assert.match(output, /"contentSha256": "8fc7e01dd294a43f907ac2c9ef85553c1e512688a6cdde53aa980e773eac9dd9"/);
    assert.match(output, /Code: Aborted\n.*"current_version": "1".*"reason": "VERSION_CONFLICT"/s);
  });

  test('with curl', { skip: installed('curl') ? false : 'curl is not installed' }, async () => {
    const [appended, listed, refused] = (await run(example(/ curl -/))).trim().split('\n');
    assert.match(appended ?? '', /^\{"version":\{.*"version":1,/);
    assert.match(listed ?? '', /^\{"documents":\[\{.*"content":"# A good one\\n"/);
    assert.match(refused ?? '', /^\{"code":"aborted",.*"reason":"VERSION_CONFLICT".*"current_version":"1"/);
  });
});
