import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { pino } from 'pino';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { Refusal } from '../src/refusal.ts';
import type { Call } from '../src/rpc/call.ts';
import { Failure } from '../src/rpc/errors.ts';
import type { AnyHandler } from '../src/rpc/handlers.ts';
import { createPipeline, type Link } from '../src/rpc/pipeline.ts';
import { compilePlans, type MethodPlan } from '../src/rpc/plan.ts';
import { expireAt } from '../src/rpc/time.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { NO_ACCESS_LOG } from './support/access.ts';

const ALL = Object.fromEntries(UserService.methods.map(({ localName }) => [localName, async () => ({})]));
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const pipeline = createPipeline({
  log: pino({ level: 'silent' }),
  accessLog: NO_ACCESS_LOG,
  measurements: createMeasurements(),
  authenticate: null,
  identifyRequest: () => null,
});
const forever: Link = { deadline: null, onGone: () => {} };

/** Calls DeleteUser, answered by a handler, past the doors. */
const call = (handler: AnyHandler, link: Link = forever): Promise<object> => {
  const handlers = Object.fromEntries(UserService.methods.map(({ localName }) => [localName, handler]));
  const plan = compilePlans([{ service: UserService, handlers }]).find(({ method }) => method.name === 'DeleteUser');
  assert.ok(plan);
  const request = create(UserService.method.deleteUser.input, { id: ID });
  return pipeline.unary(
    pipeline.enter(plan, () => undefined, { system: 'grpc', deadline: null, cut: () => {} }),
    link,
    { decode: () => request, encode: (message) => message },
  );
};

const seen = async (answer: Promise<object>): Promise<unknown[]> => {
  const failure = await answer.then(
    () => null,
    (error) => error,
  );
  assert.ok(failure instanceof Failure);
  const [info] = failure.details as unknown as { value: { metadata: { outcome: string } } }[];
  return [failure.reason, info?.value.metadata.outcome];
};

/** Lets what is already decided happen, without any timer. */
const settle = async () => {
  for (let i = 0; i < 20; i += 1) await Promise.resolve();
};

test('a unary call without a deadline gets 10 s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const calls: Call[] = [];
  const answer = call((_, made) => {
    calls.push(made);
    return new Promise((_resolve, reject) => made.signal.addEventListener('abort', () => reject(made.signal.reason)));
  });
  await settle();
  t.mock.timers.tick(9_999);
  assert.equal(calls[0]?.signal.aborted, false);
  t.mock.timers.tick(1);
  assert.equal(calls[0]?.signal.aborted, true);
  assert.deepEqual(await seen(answer), ['DEADLINE', 'unknown']);
});

test('after the deadline a handler may still say itself how the call ended', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const link: Link = { deadline: Date.now() + 100, onGone: () => {} };
  const late = (end: (resolve: (answer: object) => void, reject: (error: Error) => void) => void) =>
    call(
      (_, { signal }) =>
        new Promise((resolve, reject) => signal.addEventListener('abort', () => setTimeout(end, 200, resolve, reject))),
      link,
    );
  const cancelled = seen(late((_, reject) => reject(new Refusal('DEADLINE', 'cancelled', { outcome: 'not_applied' }))));
  const conflict = seen(late((_, reject) => reject(new Refusal('ETAG_MISMATCH', 'stale'))));
  const broken = seen(late((_, reject) => reject(new Error('the connection broke'))));
  const done = late((resolve) => resolve({}));
  await settle();
  t.mock.timers.tick(100);
  t.mock.timers.tick(200);
  assert.deepEqual(await cancelled, ['DEADLINE', 'not_applied']);
  assert.deepEqual(await conflict, ['ETAG_MISMATCH', 'not_applied']);
  assert.deepEqual(await broken, ['DEADLINE', 'unknown']);
  await done;
});

/** What a request that is never whole is answered with; null as long as it is waited for. */
const wait = (deadline: number | null) => {
  const [plan] = compilePlans([{ service: UserService, handlers: ALL }]);
  const answers: Failure[] = [];
  const cut = (failure: Failure) => answers.push(failure);
  pipeline.enter(plan as MethodPlan, () => undefined, { system: 'grpc', deadline, cut });
  return () => answers.map(({ reason }) => reason);
};

test('a request has until its deadline to come in, 10 s without one, and a minute at most', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const [none, soon, late] = [wait(null), wait(Date.now() + 100), wait(Date.now() + 3_600_000)];
  const answers = () => [none(), soon(), late()];
  t.mock.timers.tick(99);
  assert.deepEqual(answers(), [[], [], []]);
  t.mock.timers.tick(1);
  assert.deepEqual(answers(), [[], ['DEADLINE'], []]);
  t.mock.timers.tick(9_900);
  assert.deepEqual(answers(), [['DEADLINE'], ['DEADLINE'], []]);
  t.mock.timers.tick(50_000);
  assert.deepEqual(answers(), [['DEADLINE'], ['DEADLINE'], ['DEADLINE']]);
});

test('a service does not start with a method that has no handler', () => {
  assert.throws(() => compilePlans([{ service: UserService, handlers: {} }]), /UserService\/CreateUser has no handler/);
});

test('a time beyond what a timer can wait for is waited for in steps', ({ mock }) => {
  const DAY = 86_400_000;
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  let expired = 0;
  expireAt(Date.now() + 60 * DAY, () => {
    expired += 1;
  });
  for (let day = 0; day < 59; day += 1) mock.timers.tick(DAY);
  assert.equal(expired, 0);
  mock.timers.tick(DAY);
  assert.equal(expired, 1);
});
