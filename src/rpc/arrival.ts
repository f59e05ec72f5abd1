import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  ServerListenerBuilder,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { Refusal } from '../refusal.ts';
import { deadlinePassed, isPast } from './deadline.ts';
import { type Entry, timingOf } from './entry.ts';
import { bareFailure, Code, codeNameOf, type Failure, statusBytes } from './errors.ts';
import { BODY_TIMEOUT_MS } from './limits.ts';
import type { Header, Pipeline } from './pipeline.ts';
import type { MethodPlan } from './plan.ts';

/** The calls whose request is on its way, by their metadata. */
export type Arrivals = WeakMap<Metadata, Entry>;

/** How many requests that no token vouches for may be on their way at a time, in one server, and be waited for, */
const PATIENT_STRANGERS = 32;
/** and how long, in milliseconds, each one more has to come in: what an honest one needs. */
const CROWDED_TIMEOUT_MS = 250;

/**
 * Admits calls as soon as their headers are there: the request of one that is refused is never taken in. One whose request
 * does not come in whole (too large, cut off, too late) ends here. Calls of other methods are `strangers`'.
 */
export const admitAtHeaders = (
  pipeline: Pipeline,
  plans: readonly MethodPlan[],
  arrivals: Arrivals,
  strangers: ServerInterceptor,
): ServerInterceptor => {
  const byPath = new Map(plans.map((plan) => [`/${plan.name}`, plan]));
  return (method, call) => {
    const plan = byPath.get(method.path);
    if (!plan) return strangers(method, call);
    const arriving = new Arriving(call, plan, pipeline, arrivals);
    call.start = (taker) => arriving.start(taker);
    call.sendStatus = (sent) => arriving.end(sent);
    call.sendMetadata = (metadata) => arriving.sendMetadata(metadata);
    if (plan.endless) endWithConnection(call, () => arriving.entry);
    return call as unknown as ServerInterceptingCall;
  };
};

type Taker = Parameters<ServerInterceptingCallInterface['start']>[0];
type SentStatus = Parameters<ServerInterceptingCallInterface['sendStatus']>[0];

/**
 * One call between grpc-js and its handler. It listens itself and changes the call, where a `ServerInterceptingCall` would put
 * three objects and eight functions around it, at a tenth of what a short call takes.
 */
class Arriving implements Taker {
  entry: Entry | null = null;
  readonly #call: ServerInterceptingCallInterface;
  readonly #plan: MethodPlan;
  readonly #pipeline: Pipeline;
  readonly #arrivals: Arrivals;
  // As they are before this call's own.
  readonly #start: ServerInterceptingCallInterface['start'];
  readonly #sendStatus: ServerInterceptingCallInterface['sendStatus'];
  readonly #sendMetadata: ServerInterceptingCallInterface['sendMetadata'];
  #taker: Taker | null = null;
  #received = false;
  #whole = false;
  #refused = false;
  #gone = false;
  #headersSent = false;

  constructor(call: ServerInterceptingCallInterface, plan: MethodPlan, pipeline: Pipeline, arrivals: Arrivals) {
    this.#call = call;
    this.#plan = plan;
    this.#pipeline = pipeline;
    this.#arrivals = arrivals;
    this.#start = call.start;
    this.#sendStatus = call.sendStatus;
    this.#sendMetadata = call.sendMetadata;
  }

  start(taker: Taker): void {
    this.#taker = taker;
    this.#start.call(this.#call, this);
  }

  /** Before a first message, grpc-js sends headers without a word in them. */
  sendMetadata(metadata: Metadata): void {
    if (this.entry) this.#sendHeaders(this.entry);
    else this.#sendMetadata.call(this.#call, metadata);
  }

  /** What grpc-js refuses by itself passes every interceptor by, and this method not. It may do so more than once. */
  end(sent: SentStatus): void {
    if (this.#whole || !this.entry) this.#send(sent);
    else if (!this.#refused) this.#cut(this.#pipeline.fail(this.entry, causeOf(sent)));
  }

  /** Nothing of the request comes before the taker has the headers: grpc-js reads it when that asks for it. */
  onReceiveMetadata(metadata: Metadata): void {
    const deadline = Number(this.#call.getDeadline());
    const cut = (failure: Failure) => this.#cut(failure);
    const entry = this.#pipeline.enter(this.#plan, headerOf(metadata), {
      system: 'grpc',
      deadline: Number.isFinite(deadline) ? deadline : null,
      cut,
    });
    this.entry = entry;
    this.#arrivals.set(metadata, entry);
    // Who watches learns at once that the stream is open.
    if (this.#plan.streaming) this.#sendHeaders(entry);
    const proceed = () => {
      if (!this.#gone) this.#taker?.onReceiveMetadata(metadata);
    };
    whenAdmitted(this.#pipeline, entry, proceed, cut);
  }

  onReceiveMessage(message: unknown): void {
    if (this.#gone) return;
    this.#received = true;
    this.#taker?.onReceiveMessage(message);
  }

  onReceiveHalfClose(): void {
    if (this.#gone) return;
    // A client that leaves without an error ends its request like one that has sent it.
    this.#whole = this.#received;
    if (!this.#whole && this.entry) this.#pipeline.fail(this.entry, cutShort());
    this.#taker?.onReceiveHalfClose();
  }

  onCancel(): void {
    this.#gone = true;
    if (!this.#whole) this.#leave();
    this.#taker?.onCancel();
  }

  /** Ends a call whose request will not be whole. */
  #leave(): void {
    letGo(this.#call);
    if (!this.entry) return;
    const late = isPast(Number(this.#call.getDeadline()));
    this.#pipeline.fail(this.entry, late ? deadlinePassed('not_applied') : cutShort());
  }

  #cut(failure: Failure): void {
    this.#refused = true;
    this.#send(statusOf(failure));
  }

  #send(sent: SentStatus): void {
    if (this.entry) this.#sendHeaders(this.entry);
    this.#sendStatus.call(this.#call, sent);
  }

  /**
   * Sends the call's headers, when it is first called: the correlation id, whatever becomes of the call, and of a unary one
   * what it took, since its headers leave with its answer. grpc-js alone sends what has no entry.
   */
  #sendHeaders(entry: Entry): void {
    if (this.#headersSent) return;
    this.#headersSent = true;
    const headers = new Metadata();
    headers.set('x-correlation-id', entry.correlationId);
    if (!this.#plan.streaming) headers.set('server-timing', timingOf(entry));
    this.#sendMetadata.call(this.#call, headers);
  }
}

/**
 * Ends a watch behind a message once its connection takes no more calls, as one does that has had its time: the watch would keep
 * it open, and its client away from the replicas that were added meanwhile.
 */
const endWithConnection = (call: ServerInterceptingCallInterface, entered: () => Entry | null) => {
  const sendMessage = call.sendMessage.bind(call);
  call.sendMessage = (message, sent) =>
    sendMessage(message, () => {
      if (streamOf(call).session?.closed) entered()?.controller.abort(connectionEnds());
      sent();
    });
};

const connectionEnds = (): Refusal =>
  new Refusal('SHUTTING_DOWN', 'this connection takes no more calls; go on from the last revision on another one');

const whenAdmitted = (pipeline: Pipeline, entry: Entry, next: () => void, refuse: (failure: Failure) => void) => {
  let pending: Promise<void> | null;
  try {
    pending = pipeline.admit(entry);
  } catch (failure) {
    return refuse(failure as Failure);
  }
  if (pending) pending.then(next, refuse);
  else next();
};

const cutShort = (): Failure => bareFailure('CANCELLED', 'the request was cut off');

/** What a request failed with that grpc-js refused. */
const causeOf = ({ code, details }: SentStatus): unknown =>
  code === status.DEADLINE_EXCEEDED
    ? deadlinePassed('not_applied')
    : bareFailure(codeNameOf(code), details ?? 'the request was refused');

/**
 * Guards the calls that need no token: none may be on its way for long, and of many at once each but a moment. A stream's
 * next request is taken in when the one before it was answered.
 */
export const guardStrangers = (): ServerInterceptor => {
  let arriving = 0;
  return (_method, call) => {
    const late = () =>
      call.sendStatus({ code: status.DEADLINE_EXCEEDED, details: 'the request took too long to come in' });
    let timer: NodeJS.Timeout | null = setTimeout(
      late,
      arriving < PATIENT_STRANGERS ? BODY_TIMEOUT_MS : CROWDED_TIMEOUT_MS,
    );
    arriving += 1;
    const arrived = () => {
      if (timer === null) return;
      clearTimeout(timer);
      timer = null;
      arriving -= 1;
    };

    let unanswered = 0;
    let held: (() => void) | null = null;
    let whole = false;
    const listener = new ServerListenerBuilder()
      .withOnReceiveMessage((message, next) => {
        unanswered += 1;
        if (unanswered === 1) next(message);
        else held = () => next(message);
      })
      .withOnReceiveHalfClose((next) => {
        whole = true;
        arrived();
        next();
      })
      .withOnCancel(() => {
        arrived();
        if (!whole) letGo(call);
      })
      .build();
    const responder = new ResponderBuilder()
      .withStart((next) => next(listener))
      .withSendMessage((message, next) => {
        next(message);
        unanswered = 0;
        const take = held;
        held = null;
        if (take) {
          unanswered = 1;
          take();
        }
      })
      .build();
    return new ServerInterceptingCall(call, responder);
  };
};

/**
 * Closes the stream of a call that has been answered before its request was whole: grpc-js leaves it to the client to do
 * so, and keeps what has come in until then.
 */
const letGo = (call: ServerInterceptingCallInterface) => {
  const stream = streamOf(call);
  // A reset overtakes what has not left yet: the status.
  if (!stream.closed) setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR));
};

/** The stream of a call as grpc-js hands it to the first interceptors, which shows it to nobody. */
export const streamOf = (call: ServerInterceptingCallInterface): ServerHttp2Stream =>
  (call as unknown as { readonly stream: ServerHttp2Stream }).stream;

const headerOf =
  (metadata: Metadata): Header =>
  (name) => {
    const values = metadata.get(name);
    return values.length === 0 ? undefined : values.join(', ');
  };

/** A failure as gRPC's trailers tell it. */
export const statusOf = (failure: Failure): StatusObject => {
  const metadata = new Metadata();
  if (failure.details.length > 0) metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(failure)));
  if (failure.pushbackMs !== null) metadata.set('grpc-retry-pushback-ms', String(failure.pushbackMs));
  return { code: Code[failure.code], details: failure.message, metadata };
};
