import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { startEmbedded } from '../src/db/embedded.ts';
import { LOGINS, type Passwords } from '../src/db/role-table.ts';
import { bootstrap } from '../src/db/roles.ts';
import { connectAs } from './support/postgres.ts';
import { prepareServer } from './support/server.ts';
import { newProject, useService } from './support/service.ts';
import { until } from './support/until.ts';

const passwords = Object.fromEntries(
  LOGINS.map((login) => [login, randomBytes(16).toString('hex')]),
) as unknown as Passwords;
const { adminUrl, folder, stop } = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: () => {} } });
after(stop);
const db = await prepareServer(adminUrl, passwords);
const admin = await connectAs(db.adminUrl);
const log = (): string => readFileSync(join(folder, 'postgres.log'), 'utf8');

/** Calls whose every text is the mark, through statements and functions of every kind. */
const call = async (mark: string): Promise<void> => {
  const service = await useService({ db });
  const { projectId, owner } = await newProject(service);
  const content = { projectId, documentType: mark, content: mark, reason: mark, metadata: { [mark]: mark } };
  await service.documents.appendVersion(content, { actor: owner });
  await service.documents.getVersion({ projectId, documentType: mark }, { actor: owner });
  await service.documents.searchDocuments({ projectId, query: mark }, { actor: owner });
  await service.users.updateUser({ user: { id: owner, name: mark, email: `${mark}@example.org` } });
  await service.users.getUserByEmail({ email: `${mark}@example.org` });
  await service.stop();
};

const newMark = (): string => `mark${randomUUID().replaceAll('-', '')}`;

/** What an operator of a shared server might have it print, for every role and statement. */
const EVERYTHING = {
  'auto_explain.log_min_duration': '0',
  'auto_explain.log_nested_statements': 'on',
  'auto_explain.log_parameter_max_length': '-1',
};

describe("the server's log", () => {
  it('has no plan of the service’s, whatever auto_explain is set to for the server', async () => {
    for (const [name, value] of Object.entries(EVERYTHING)) {
      await admin.query(`alter system set ${name} = '${value}'`);
    }
    await admin.query('select pg_reload_conf()');
    const own = newMark();
    await until(async () => {
      await admin.query('select $1::text', [own]);
      return log().includes(own);
    }, 'others’ plans are printed');
    const before = log().length;
    const mark = newMark();
    await call(mark);
    const printed = log().slice(before);
    assert.doesNotMatch(printed, new RegExp(mark));
    assert.doesNotMatch(printed, /append_versions|enter_project/);
  });

  it('has plans without a value where an operator switches them on as the README has it', async () => {
    for (const setting of [
      `plan_cache_mode = 'force_generic_plan'`,
      `auto_explain.log_nested_statements = on`,
      `auto_explain.log_min_duration = 0`,
    ]) {
      await admin.query(`alter role jeex_app set ${setting}`);
    }
    const before = log().length;
    const mark = newMark();
    await call(mark);
    const printed = log().slice(before);
    assert.match(printed, /Function Scan on append_versions/, 'a statement’s');
    assert.match(printed, /insert into document_versions[^;]*\n\tInsert on document_versions/i, 'and what is inside');
    assert.doesNotMatch(printed, new RegExp(mark));
  });

  it('has none again after a bootstrap', async () => {
    await bootstrap(adminUrl, { database: db.name, passwords });
    const before = log().length;
    await call(newMark());
    assert.doesNotMatch(log().slice(before), /append_versions|enter_project/);
  });
});
