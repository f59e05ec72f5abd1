/** A call as a driver makes it. */
export interface Request {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** In binary. */
  readonly body: Uint8Array;
  /** How many bytes the answer has, but for its numbers; checked. */
  readonly answerBytes: number;
  /** What to replace in the body by something new for each call; only the driver in Node can. */
  readonly stamp?: string;
  /** Of a CreateExecution: whether CompleteExecution follows, as part of the same call. */
  readonly completes?: boolean;
}

/** Calls that a driver makes. */
export interface Load {
  /** Of the gRPC door: host:port. */
  readonly address: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent in turn. */
  readonly requests: readonly Request[];
  /** Calls in flight, at most. */
  readonly callers: number;
  readonly calls: number;
  /** How many calls are sent a second, whether or not those before are answered; without it, each caller waits for its answer. */
  readonly rate?: number;
  /** How long a call may take, in milliseconds; as long as it likes without it. */
  readonly deadlineMs?: number;
}

/** What became of them. */
export interface Outcome {
  readonly answered: number;
  /** By reason; a driver that cannot tell reasons says `refused`. */
  readonly failed: Readonly<Record<string, number>>;
  readonly seconds: number;
  /** Milliseconds, each. At a rate, a driver that can counts from when a call was due. */
  readonly took: readonly number[];
}

export interface Driver {
  readonly name: string;
  run(load: Load): Promise<Outcome>;
}

/** Answers hold numbers whose length varies, times above all: so much of an answer's size, and no less than this, in bytes. */
const TOLERATED_SHARE = 0.02;
const LEAST_TOLERATED = 16;

/** How far so many bytes may be from those of the sampled answer. */
export const tolerance = (bytes: number): number => Math.max(LEAST_TOLERATED, bytes * TOLERATED_SHARE);

/** How many calls have failed. */
export const failedOf = ({ failed }: Outcome): number => Object.values(failed).reduce((sum, count) => sum + count, 0);

/** Several drivers' outcomes of one load. */
export const merged = (outcomes: readonly Outcome[]): Outcome => {
  const failed: Record<string, number> = {};
  for (const [reason, count] of outcomes.flatMap((outcome) => Object.entries(outcome.failed))) {
    failed[reason] = (failed[reason] ?? 0) + count;
  }
  return {
    answered: outcomes.reduce((sum, { answered }) => sum + answered, 0),
    failed,
    seconds: Math.max(...outcomes.map(({ seconds }) => seconds)),
    took: outcomes.flatMap(({ took }) => took),
  };
};
