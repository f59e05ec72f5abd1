import { crc32 } from 'node:zlib';
import type { DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { type Answered, type Door, type Envelope, Failed } from './door.ts';
import type { Faults } from './faults.ts';
import type { Place } from './history.ts';
import { ANY_PROJECT, type Asked, type Ledger, type Seen } from './ledger.ts';
import type { Look } from './look.ts';
import { foreignIn } from './look.ts';
import type { Marks } from './marks.ts';
import type { RetryPolicy } from './options.ts';
import { backOff } from './patience.ts';
import type { Random } from './random.ts';
import type { Tally } from './tally.ts';

/** How many writes are sent twice at the same time, how many once more after their answer, and how many calls' clients leave. */
const TWINS = 0.02;
const REPLAYS = 0.04;
const LEAVERS = 0.01;
const MOST_STAY_MS = 20;

/** What all callers of a run share. */
export interface Shared {
  readonly ledger: Ledger;
  readonly marks: Marks;
  readonly look: Look;
  readonly faults: Faults;
  readonly tally: Tally;
  readonly retry: RetryPolicy;
  readonly places: readonly Place[];
}

type Plain<M extends DescMethodUnary> = MessageInitShape<M['input']> & Record<string, unknown>;

interface Call<M extends DescMethodUnary> {
  readonly asked: Asked;
  readonly method: M;
  /** What the answer shows. */
  readonly see: (message: MessageShape<M['output']>) => readonly Seen[];
  /** What a refusal shows; nothing: it is a failure like others. */
  readonly refused?: (failed: Failed) => readonly Seen[];
}

export interface Write<M extends DescMethodUnary> extends Call<M> {
  /** Whoever writes signs with the operation's number. */
  readonly request: (operation: number) => Plain<M>;
}

export interface Read<M extends DescMethodUnary> extends Call<M> {
  readonly request: Plain<M>;
}

/** One caller: makes calls, writes each into the ledger, sends again what failed. */
export class Worker {
  readonly shared: Shared;
  readonly door: Door;
  /** Chooses what is done. */
  readonly random: Random;
  /** Chooses how long is waited, and who leaves: apart, so that failures do not change what is done. */
  readonly #jitter: Random;

  constructor(shared: Shared, door: Door, random: Random, jitter: Random) {
    this.shared = shared;
    this.door = door;
    this.random = random;
    this.#jitter = jitter;
  }

  /**
   * Makes a write, again until it is answered or refused; sometimes twice.
   * @returns its answer and its number; null when it was refused, or its outcome stays unknown
   */
  async write<M extends DescMethodUnary>(
    write: Write<M>,
  ): Promise<{ readonly operation: number; readonly message: MessageShape<M['output']> } | null> {
    const { ledger, tally } = this.shared;
    const operation = ledger.ask(write.asked);
    const [twice, again] = [this.random.chance(TWINS), this.random.chance(REPLAYS)];
    const twin = twice ? this.#insist(operation, write) : null;
    const results = [await this.#insist(operation, write), await twin];
    if (twice) tally.replays += 1;
    const answer = results.find((result) => result !== null);
    if (!answer) return null;
    tally.acknowledged += 1;
    if (again) {
      tally.replays += 1;
      await this.#insist(operation, write);
    }
    return { operation, message: answer };
  }

  /** Makes a read, once. @returns its answer; null when it failed */
  async read<M extends DescMethodUnary>({
    asked,
    method,
    request,
    see,
    refused,
  }: Read<M>): Promise<MessageShape<M['output']> | null> {
    const { ledger, tally } = this.shared;
    const operation = ledger.ask(asked);
    const call = ledger.begin(operation);
    const result = await this.#call(method, request, this.#envelope(asked, operation, call));
    ledger.end(call, result instanceof Failed && !refused?.(result).length ? 'refused' : 'answered');
    if (result instanceof Failed) {
      const seen = refused?.(result) ?? [];
      ledger.see(call, seen);
      if (seen.length === 0) this.#refused(asked, operation, result);
      return null;
    }
    tally.reads += 1;
    this.checkForeign(asked, result.message);
    ledger.see(call, see(result.message));
    return result.message;
  }

  /**
   * Makes a call that has to be refused, so that the ledger does not hold it.
   * @returns OK, or why it was refused; null when it failed for another reason
   */
  async provoke<M extends DescMethodUnary>(method: M, request: Plain<M>, envelope: Envelope): Promise<string | null> {
    const { tally } = this.shared;
    const result = await this.#call(method, request, envelope);
    tally.provoked += 1;
    if (!(result instanceof Failed)) return 'OK';
    if (!result.passing) return result.reason;
    tally.fail(result.reason);
    return null;
  }

  /** Whose rows an answer shows. */
  checkForeign({ project, kind }: Asked, message: unknown): void {
    const { places, faults } = this.shared;
    const place = places[project];
    if (project === ANY_PROJECT || place === undefined) return;
    for (const id of foreignIn(message, place.id)) {
      faults.add('foreign', `${kind} of project ${place.id} was answered with a row of ${id || 'no project'}`);
    }
  }

  actor({ project, actor }: Asked): string | undefined {
    return actor === 'system' ? undefined : this.shared.places[project]?.users[actor];
  }

  async #insist<M extends DescMethodUnary>(
    operation: number,
    write: Write<M>,
  ): Promise<MessageShape<M['output']> | null> {
    const { retry, tally } = this.shared;
    const began = performance.now();
    const request = { ...write.request(operation), requestId: this.shared.marks.requestId(operation) };
    for (let tries = 0; ; tries++) {
      const result = await this.#try(operation, write, request);
      if (!(result instanceof Failed)) return result.message;
      if (!result.passing || performance.now() - began > retry.giveUpMs) return null;
      tally.retries += 1;
      await backOff(retry, tries, this.#jitter, result.pushbackMs);
    }
  }

  async #try<M extends DescMethodUnary>(
    operation: number,
    { asked, method, see, refused }: Write<M>,
    request: Plain<M>,
  ) {
    const { ledger } = this.shared;
    const call = ledger.begin(operation);
    const result = await this.#call(method, request, this.#envelope(asked, operation, call));
    if (result instanceof Failed) {
      ledger.end(call, result.refused ? 'refused' : 'unknown');
      ledger.see(call, refused?.(result) ?? []);
      this.#refused(asked, operation, result);
      return result;
    }
    ledger.end(call, 'answered', crc32(result.bytes));
    this.checkForeign(asked, result.message);
    ledger.see(call, see(result.message));
    return result;
  }

  /** Everything that a caller asks for was there when it was told of it, and nothing is ever removed. */
  #refused({ kind }: Asked, operation: number, { reason, message }: Failed): void {
    const { tally, faults } = this.shared;
    tally.fail(reason);
    if (reason.endsWith('_NOT_FOUND'))
      faults.add('stale', `operation ${operation} ${kind} of what was there: ${message}`);
  }

  #envelope(asked: Asked, operation: number, call: number): Envelope {
    const attempt = this.shared.ledger.attempt(call);
    const leaves = this.#jitter.chance(LEAVERS);
    return {
      actor: this.actor(asked),
      correlationId: this.shared.marks.correlationId({ operation, attempt }),
      leaveAfterMs: leaves ? this.#jitter.below(MOST_STAY_MS) : null,
    };
  }

  #call<M extends DescMethodUnary>(method: M, request: Plain<M>, envelope: Envelope): Promise<Answered<M> | Failed> {
    return this.door.call(method, request, envelope).catch((error: unknown) => {
      if (error instanceof Failed) return error;
      throw error;
    });
  }
}
