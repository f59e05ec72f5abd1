import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { type DescMethod, equals, type Message } from '@bufbuild/protobuf';
import { useEffects } from './support/effects.ts';
import { exampleOf } from './support/examples.ts';
import { callOf, isRead, keyOf, METHODS } from './support/methods.ts';
import { useService } from './support/service.ts';

const service = await useService();
const effectOf = await useEffects(service.db);

const mutations = METHODS.filter((method) => !isRead(method));

describe('50 parallel calls with one request_id', () => {
  for (const method of mutations) {
    it(`${keyOf(method)}: one effect, 50 equal answers, another request refused`, async () => {
      const call = callOf(service, method);
      const single = await exampleOf(service, method);
      const once = await effectOf(() => call(single.request, single.options));
      const { request, options } = await exampleOf(service, method);
      const requestId = randomUUID();
      let answers: Message[] = [];
      const effect = await effectOf(async () => {
        answers = await Promise.all(Array.from({ length: 50 }, () => call({ ...request, requestId }, options)));
      });
      assert.deepEqual(effect, once, 'the effect is that of one call');
      const [first] = answers;
      assert.ok(first);
      for (const answer of answers) assert.ok(equals(method.output, first, answer), 'an answer differs');
      const other = { ...request, ...differing(method, request), requestId };
      await assert.rejects(call(other, options), { reason: 'REQUEST_ID_REUSED' });
    });
  }
});

/** Another value for the first of these fields that a request has: whoever may send the one may send the other. */
const OTHER_VALUES: Readonly<Record<string, (request: Record<string, unknown>) => unknown>> = {
  reason: () => 'other',
  errorMessage: () => 'other',
  cancelReason: () => 'other',
  filePath: () => 'other',
  metadata: () => ({ other: true }),
  profile: () => ({ other: true }),
  leaseSeconds: () => 77,
  documentTypes: () => ['idea'],
  etag: () => 'v1',
  role: () => 1,
  quota: () => ({ versions: 3n }),
  entries: ({ entries }) => (entries as unknown[]).slice(1),
  executions: ({ executions }) => (executions as unknown[]).slice(1),
  versions: () => [],
  userId: () => randomUUID(),
  id: () => randomUUID(),
};

const differing = (method: DescMethod, request: Record<string, unknown>): Record<string, unknown> => {
  const names = method.input.fields.map(({ localName }) => localName);
  const name = Object.keys(OTHER_VALUES).find((each) => names.includes(each)) ?? '';
  return { [name]: OTHER_VALUES[name]?.(request) };
};
