import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { create, type DescMethod, equals, fromJsonString, toJsonString } from '@bufbuild/protobuf';
import { post } from './support/echo.ts';
import { newWorld } from './support/examples.ts';
import { callOf, type Fields, methodOf } from './support/methods.ts';
import { connectAs } from './support/postgres.ts';
import { useService } from './support/service.ts';

const service = await useService();
const { documents, executions, exports, projects, users } = service;
const admin = await connectAs(service.db.adminUrl);

const TEXTS: Readonly<Record<string, string>> = {
  'an emoji of many parts': '👩‍👩‍👧‍👦 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿',
  'right to left, with marks that turn it around': 'שלום \u202eabc\u202c עולם',
  'a letter and its accent, not made one': 'e\u0301 is not \u00e9',
  'a byte order mark': '\ufeffbegins',
  'every end of a line': 'a\r\nb\rc\nd\u2028e\u2029f\u0085g\u000bh',
  'characters that are none': '\uffff\ufffe\u{1ffff}\u{10ffff}',
  'four bytes a character': '𝒳𐀀𠮷',
  'control characters': '\u0001\u0008\u001b[31m\u001f\u007f',
  'an injection into SQL': `Robert'); drop table users; -- "$1" $$ \\'`,
  'what other languages read': '{{7*7}} %s %00 \\u0000 \\x00 &amp; <script>alert(1)</script> #{x} $(x)',
  'white space around it': '\t  in the middle \u00a0\u3000 ',
  'the words for nothing': 'null',
  'letters whose case is strange': 'İıSſßẞ',
};

/** Answers a read over JSON. */
const overJson = async (method: DescMethod, request: Fields) => {
  const response = await post(
    `http://${service.http}`,
    method,
    toJsonString(method.input, create(method.input, request)),
  );
  return fromJsonString(method.output, await response.text());
};

describe('valid text comes back as it was sent, in every field', () => {
  for (const [what, text] of Object.entries(TEXTS)) {
    it(what, async () => {
      const nested = { [text]: [text, { [`${text}!`]: { deep: text } }], number: -0.1, nothing: null };
      const { projectId } = await newWorld(service);

      // The white space around an address is not kept.
      const email = `${randomUUID()}${text}@example.org`;
      const created = await users.createUser({ email, name: text, profile: nested });
      const { user } = await users.getUser({ id: created.user?.id ?? '' });
      assert.deepEqual([user?.email, user?.name, user?.profile], [email, text, nested]);
      assert.equal((await users.getUserByEmail({ email })).user?.id, user?.id);
      assert.deepEqual((await users.listUsers({ emailPrefix: email })).users, [user]);

      await projects.updateProject({ project: { id: projectId, name: text, metadata: nested } });
      const { project } = await projects.getProject({ id: projectId });
      assert.deepEqual([project?.name, project?.metadata], [text, nested]);

      const agentType = `${text.slice(0, 50).toWellFormed()}${randomUUID()}`;
      const data = Buffer.from(`${text}\0\xff`, 'latin1');
      const input = { contentType: `text/plain; note=${text}`, data };
      const run = await executions.createExecution({ projectId, agentType, input, start: true });
      const id = run.execution?.id ?? '';
      const content = `${text}\n${text}`;
      const entry = { documentType: 'idea', content, reason: text, metadata: nested };
      const model = text.slice(0, 90).toWellFormed();
      await executions.completeExecution({ projectId, id, leaseToken: run.leaseToken, model, versions: [entry] });
      const { execution } = await executions.getExecution({ projectId, id });
      assert.deepEqual([execution?.agentType, execution?.model], [agentType, model]);
      assert.equal(execution?.input?.contentType, input.contentType);
      assert.deepEqual(Buffer.from(execution?.input?.data ?? []), data);
      const found = await executions.listExecutions({ projectId, agentType });
      assert.equal(found.executions.length, 1);

      const { version } = await documents.getVersion({ projectId, documentType: 'idea' });
      assert.deepEqual([version?.content, version?.reason, version?.metadata], [content, text, nested]);
      assert.equal(version?.contentSha256, createHash('sha256').update(content, 'utf8').digest('hex'));
      assert.equal(version?.sizeBytes, BigInt(Buffer.byteLength(content)));

      for (const [start, explanation] of [
        [true, text],
        [false, text],
      ] as const) {
        const other = await executions.createExecution({ projectId, agentType: 'a', start });
        const held = { projectId, id: other.execution?.id ?? '', leaseToken: other.leaseToken };
        const ended = start
          ? await executions.failExecution({ ...held, errorMessage: explanation })
          : await executions.cancelExecution({ ...held, cancelReason: explanation });
        assert.equal(start ? ended.execution?.errorMessage : ended.execution?.cancelReason, text);
      }

      const made = await exports.createExport({ projectId });
      const exportId = made.export?.id ?? '';
      const { leaseToken } = await exports.startExport({ projectId, id: exportId });
      const file = { filePath: text, fileSizeBytes: 1n, fileSha256: 'a'.repeat(64) };
      await exports.completeExport({ projectId, id: exportId, leaseToken, ...file });
      assert.equal((await exports.getExport({ projectId, id: exportId })).export?.filePath, text);
      for await (const streamed of exports.streamExportContent({ projectId, id: exportId })) {
        assert.equal(streamed.version?.content, content);
      }
      assert.ok(await documents.searchDocuments({ projectId, query: text.slice(0, 900).toWellFormed() }));

      for (const [key, request] of [
        ['DocumentService/GetVersion', { projectId, documentType: 'idea' }],
        ['ProjectService/GetProject', { id: projectId }],
        ['UserService/GetUser', { id: user?.id }],
        ['AgentExecutionService/GetExecution', { projectId, id }],
      ] as const) {
        const method = methodOf(key);
        const same = equals(method.output, await callOf(service, method)(request), await overJson(method, request));
        assert.ok(same, `${key} answers another over JSON`);
      }
    });
  }

  it('names that JavaScript holds dear are names like any other', async () => {
    const { projectId } = await newWorld(service);
    const metadata = JSON.parse('{"__proto__": {"x": 1}, "constructor": "c", "toString": [1], "hasOwnProperty": null}');
    for (const set of [
      () => projects.updateProject({ project: { id: projectId, metadata } }),
      () => documents.appendVersion({ projectId, documentType: 'idea', content: 'x', metadata }),
    ]) {
      await set();
    }
    const { project } = await projects.getProject({ id: projectId });
    const { version } = await documents.getVersion({ projectId, documentType: 'idea' });
    const { user } = await users.createUser({ email: `${randomUUID()}@example.org`, name: 'N', profile: metadata });
    for (const seen of [project?.metadata, version?.metadata, user?.profile]) {
      assert.equal(JSON.stringify(Object.entries(seen ?? {}).sort()), JSON.stringify(Object.entries(metadata).sort()));
    }
  });

  it('and every number a double can be', async () => {
    const numbers = [0, -0.5, 1e-7, 5e-324, 1.7976931348623157e308, 2 ** 53 + 2, 0.1 + 0.2, -1e21];
    const { projectId } = await newWorld(service);
    await projects.updateProject({ project: { id: projectId, metadata: { numbers } } });
    assert.deepEqual((await projects.getProject({ id: projectId })).project?.metadata, { numbers });
  });

  it('and nothing that was sent was run as SQL', async () => {
    const { rows } = await admin.query(`select to_regclass('jeex.users') is not null as there`);
    assert.equal(rows[0].there, true);
  });
});
