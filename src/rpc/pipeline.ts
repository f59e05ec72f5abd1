import type { Message } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { AccessLog } from '../audit/access-log.ts';
import type { Share } from '../db/fair-queue.ts';
import { invalidField, type Outcome, Refusal } from '../refusal.ts';
import type { Measurements, RpcSystem } from '../telemetry/measurements.ts';
import { endTrace } from '../telemetry/spans.ts';
import { type Caller, SCOPES } from './access.ts';
import type { Call } from './call.ts';
import { bodyDeadline, deadlinePassed, watch } from './deadline.ts';
import { type Entry, elapsedMs, enter, UUID } from './entry.ts';
import { ClientGone, type Failure, toFailure } from './errors.ts';
import type { IdentifyRequest } from './identity.ts';
import { accessRecordOf, logCall } from './log-call.ts';
import { createPace } from './pace.ts';
import type { MethodPlan } from './plan.ts';
import { bounded, expireAt } from './time.ts';
import { createTurns } from './turns.ts';

/** Answers who calls, from the call's headers; throws UNAUTHENTICATED. */
export type Authenticate = (header: Header) => Caller | Promise<Caller>;

/** A request header by its lower-case name; several of one name are joined by commas. */
export type Header = (name: string) => string | undefined;

/** What a door knows of a call's end. */
export interface Link {
  /** When the client stops waiting, in milliseconds since the epoch; null when it did not say. */
  readonly deadline: number | null;
  /** Calls back when the client has gone, or when the transport gave the call up. */
  readonly onGone: (gone: () => void) => void;
}

/** How a door reads its request and writes its answers. */
export interface Codec<T> {
  /** Throws INVALID_FIELD. */
  readonly decode: () => Message;
  /** Of what a handler answers. */
  readonly encode: (answer: object) => T;
}

/** What a door knows of a request that is on its way. */
interface Arrival {
  readonly system: RpcSystem;
  /** When the client stops waiting, in milliseconds since the epoch; null when it did not say. */
  readonly deadline: number | null;
  /** Answers with a failure now, and takes no more of the request. */
  readonly cut: (failure: Failure) => void;
}

export interface Pipeline {
  /** Begins a call, as soon as its headers are there. A request that takes too long to come in is cut, with DEADLINE. */
  enter(plan: MethodPlan, header: Header, arrival: Arrival): Entry;
  /**
   * Lets a call in before its body is read: SHUTTING_DOWN, UNAUTHENTICATED, SCOPE_REQUIRED or a wrong header. Throws a
   * Failure, or rejects with one; null when the call is in already.
   */
  admit(entry: Entry): Promise<void> | null;
  /** Answers a unary call. Throws a Failure. */
  unary<T>(entry: Entry, link: Link, codec: Codec<T>): Promise<T>;
  /** Answers a server stream. Throws a Failure. */
  stream<T>(entry: Entry, link: Link, codec: Codec<T>): AsyncGenerator<T, void>;
  /** Ends a call that failed outside: in a transport, or while its request was decoded. */
  fail(entry: Entry, error: unknown): Failure;
  /** Refuses new calls from now on, ends the watches after what they have sent, and waits for the rest, `graceMs` at most. */
  drain(graceMs: number): Promise<void>;
}

/** How long, in milliseconds, a draining server waits for the first message of a watch, */
const FIRST_MESSAGE_MS = 250;
/** and for the rest of a request that has begun to come in. */
const REST_MS = 2000;
/** How long, in milliseconds, the calls that a drain has cut off have to answer so. */
const LAST_ANSWERS_MS = 400;
const DRAIN_POLL_MS = 25;

/** Ids of a refused request that go on record, as many as one that is answered may name. */
const MAX_IDS = 1000;

/** The caller of every call while authentication is off. */
const ANYBODY: Caller = {
  name: 'anonymous',
  scopes: new Set(SCOPES),
  actors: null,
  projects: null,
  expires: null,
};

export interface PipelineOptions {
  readonly log: Logger;
  readonly accessLog: AccessLog;
  readonly measurements: Measurements;
  /** Null while authentication is off. */
  readonly authenticate: Authenticate | null;
  readonly identifyRequest: IdentifyRequest;
}

/**
 * Everything that cuts across the methods, once, above both doors: correlation, draining, authentication, access, decoding,
 * text, rules, request identity, deadline, error mapping, the line in the log and the access record.
 */
export const createPipeline = (options: PipelineOptions): Pipeline => {
  const { log, accessLog, measurements, authenticate, identifyRequest } = options;
  const running = new Set<Entry>();
  const turns = createTurns();
  let unaryCalls = 0;
  const pace = createPace(() => unaryCalls);
  let draining = false;

  const settle = (entry: Entry, failure: Failure | null) => {
    if (entry.settled) return;
    entry.settled = true;
    entry.failure = failure;
    entry.stopTimer?.();
    running.delete(entry);
    const code = failure?.code ?? 'OK';
    endTrace(entry.trace, code, failure?.reason ?? null);
    measurements.call(entry.system, entry.plan, code, elapsedMs(entry) / 1000);
    logCall(log, entry, failure);
    accessLog.record(accessRecordOf(entry, failure ? (failure.reason ?? failure.code) : 'OK'));
  };

  const fail = (entry: Entry, error: unknown): Failure => {
    const failure = toFailure(error, { mutation: entry.plan.mutation, started: entry.started });
    settle(entry, failure);
    return failure;
  };

  /** Ends a call whose request is still on its way. */
  const cutOff = (entry: Entry, refusal: Refusal) => {
    const { cut } = entry;
    if (cut === null || entry.settled) return;
    entry.cut = null;
    cut(fail(entry, refusal));
  };

  /** A promise only where authentication takes its time: most tokens are known, and their calls wait for nothing. */
  const authenticated = (entry: Entry): Promise<void> | null => {
    if (entry.admitted) return null;
    accessLog.admit();
    if (!entry.correlationValid) throw invalidField('x-correlation-id', 'must be a UUID');
    if (draining) throw shutDown('not_applied');
    const caller = authenticate ? authenticate(entry.header) : ANYBODY;
    if (caller instanceof Promise) return caller.then((known) => letIn(entry, known));
    letIn(entry, caller);
    return null;
  };

  const letIn = (entry: Entry, caller: Caller) => {
    // It may have been cut while its token was checked.
    if (entry.failure) throw entry.failure;
    entry.caller = caller;
    const actor = entry.header('x-actor-id') ?? null;
    if (actor !== null && !UUID.test(actor)) throw invalidField('x-actor-id', 'must be a UUID');
    entry.actor = actor === null ? null : actor.toLowerCase();
    entry.plan.checkAccess(caller, entry.actor);
    entry.admitted = true;
  };

  /** Waits until the call may begin, on account of its caller and project. */
  const itsTurn = async (entry: Entry, request: Message): Promise<void> => {
    const asked = performance.now();
    await turns.take(shareOf(entry, request));
    const waited = performance.now() - asked;
    entry.timing.queueMs += waited;
    measurements.turns.record(waited / 1000);
    if (entry.failure) throw entry.failure;
  };

  const prepare = async (entry: Entry, link: Link, decode: () => Message): Promise<[Message, Call]> => {
    entry.whole = true;
    // A transport gave the call up while its body came in.
    if (entry.failure) throw entry.failure;
    const admission = authenticated(entry);
    if (admission) await admission;
    const { plan, controller } = entry;
    const caller = entry.caller as Caller;
    const request = decode();
    await itsTurn(entry, request);
    entry.cut = null;
    entry.stopTimer?.();
    checkMessage(entry, request);
    plan.checkCover(caller, entry.subject.projects);
    watch(entry, link);
    controller.signal.throwIfAborted();
    const call: Call = {
      method: plan.method,
      caller: caller.name,
      actor: entry.actor,
      project: entry.subject.projects[0] ?? '',
      correlationId: entry.correlationId,
      signal: controller.signal,
      timing: entry.timing,
      trace: entry.trace,
      request: plan.mutation ? identifyRequest(plan.name, plan.method.input, request) : null,
    };
    entry.started = true;
    return [request, call];
  };

  return {
    enter: (plan, header, { system, deadline, cut }) => {
      const entry = enter(plan, system, header, cut);
      running.add(entry);
      entry.stopTimer = expireAt(bodyDeadline(deadline), () => cutOff(entry, deadlinePassed('not_applied')));
      return entry;
    },

    admit: (entry) => {
      const refuse = (error: unknown) => {
        throw fail(entry, error);
      };
      try {
        return authenticated(entry)?.catch(refuse) ?? null;
      } catch (error) {
        return refuse(error);
      }
    },

    unary: async (entry, link, { decode, encode }) => {
      unaryCalls += 1;
      try {
        const [request, call] = await prepare(entry, link, decode);
        const work = entry.plan.handler(request as never, call) as Promise<object>;
        const answer = await bounded(work, call.signal);
        const encoded = encode(answer);
        entry.subject = entry.plan.answeredSubject(entry.subject, answer);
        settle(entry, null);
        return encoded;
      } catch (error) {
        throw fail(entry, whyEnded(entry, error));
      }
    },

    stream: async function* (entry, link, { decode, encode }) {
      let messages: AsyncIterator<object> | null = null;
      let done = false;
      try {
        const [request, call] = await prepare(entry, link, decode);
        const made = (entry.plan.handler(request as never, call) as AsyncIterable<object>)[Symbol.asyncIterator]();
        messages = made;
        for (;;) {
          entry.waitingSince = performance.now();
          const making = entry.plan.endless ? made.next() : pace(shareOf(entry, request), () => made.next());
          const next = await bounded(making, call.signal);
          entry.waitingSince = null;
          done = next.done === true;
          call.signal.throwIfAborted();
          if (next.done) break;
          const encoded = encode(next.value);
          entry.subject = entry.plan.answeredSubject(entry.subject, next.value);
          if (!entry.opened) accessLog.record(accessRecordOf(entry, 'OPENED'));
          entry.opened = true;
          yield encoded;
        }
        settle(entry, null);
      } catch (error) {
        throw fail(entry, whyEnded(entry, error));
      } finally {
        // Reached without an error when the door stopped reading; the handler is told in both cases, and not waited for.
        if (!done) messages?.return?.().catch(() => {});
        if (!entry.settled) {
          entry.controller.abort(new ClientGone());
          fail(entry, new ClientGone());
        }
      }
    },

    fail,

    drain: async (graceMs) => {
      draining = true;
      const end = performance.now() + graceMs;
      while (running.size > 0 && performance.now() < end + LAST_ANSWERS_MS) {
        const late = performance.now() >= end;
        for (const entry of running) {
          if (late || isStuck(entry)) cutOff(entry, shutDown('not_applied'));
          if (late || mayEnd(entry)) entry.controller.abort(shutDown('unknown'));
        }
        await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS));
      }
    },
  };
};

/** On whose account a call waits. What is not checked yet is not kept. */
const shareOf = ({ caller, plan }: Entry, request: Message): Share => {
  const [project = ''] = plan.subjectOf(request).projects;
  return { caller: caller?.name ?? '', project: UUID.test(project) ? project : '' };
};

const shutDown = (outcome: Outcome): Refusal =>
  new Refusal('SHUTTING_DOWN', 'the service is shutting down', { outcome });

/** A watch ends behind a message, from which its client goes on elsewhere. */
const mayEnd = ({ plan, opened, waitingSince }: Entry): boolean =>
  plan.endless && (opened || (waitingSince !== null && performance.now() - waitingSince >= FIRST_MESSAGE_MS));

const isStuck = ({ whole, began }: Entry): boolean => !whole && performance.now() - began >= REST_MS;

/** @throws Refusal as the plan does; who is refused is on record with the ids that are some */
const checkMessage = (entry: Entry, request: Message) => {
  const { plan } = entry;
  try {
    plan.checkMessage(request);
    entry.subject = plan.subjectOf(request);
  } catch (error) {
    const { projects, users } = plan.subjectOf(request);
    entry.subject = { projects: idsIn(projects), users: idsIn(users) };
    throw error;
  }
};

const idsIn = (texts: readonly string[]): string[] =>
  texts
    .filter((text) => UUID.test(text))
    .slice(0, MAX_IDS)
    .map((id) => id.toLowerCase());

/**
 * Why a call ended: a handler's own refusal counts even when it came late; any other error after the signal has aborted
 * is how the handler stopped. What the signal says before the handler was called, it says of a call without effect.
 */
const whyEnded = (entry: Entry, error: unknown): unknown => {
  const { signal } = entry.controller;
  if (!signal.aborted || (error instanceof Refusal && error !== signal.reason)) return error;
  const { reason } = signal;
  return reason instanceof Refusal && !entry.started ? new Refusal(reason.reason, reason.message) : reason;
};
