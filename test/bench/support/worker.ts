import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { BASE_ENVIRONMENT } from '../../support/spawned.ts';

/** A process of the benchmark's own that answers questions, several at a time. */
export interface Worker<Question, Answer> {
  /** @throws Error with what the worker has met */
  ask(question: Question): Promise<Answer>;
  /** Ends it; again: waits. */
  stop(): Promise<void>;
}

interface Asked<Question> {
  readonly id: number;
  readonly question: Question;
}

type Told<Answer> = { readonly id: number } & ({ readonly answer: Answer } | { readonly error: string });

/** Starts one, until it is stopped or the signal aborts; then it is killed, and questions that wait are rejected. */
export const startWorker = async <Question, Answer>(
  file: URL,
  signal: AbortSignal,
): Promise<Worker<Question, Answer>> => {
  const child = fork(fileURLToPath(file), {
    env: BASE_ENVIRONMENT,
    serialization: 'advanced',
    signal,
    killSignal: 'SIGKILL',
  });
  const waiting = new Map<number, PromiseWithResolvers<Answer>>();
  // An abort is an error of the child's too.
  child.on('error', () => {});
  await once(child, 'message');
  child.on('message', (told: Told<Answer>) => {
    const asked = waiting.get(told.id);
    waiting.delete(told.id);
    if ('error' in told) asked?.reject(new Error(told.error));
    else asked?.resolve(told.answer);
  });
  child.on('exit', (code) => {
    for (const { reject } of waiting.values()) reject(signal.reason ?? new Error(`the worker ended with ${code}`));
  });
  let questions = 0;
  return {
    ask: (question) => {
      const id = questions++;
      const asked = Promise.withResolvers<Answer>();
      waiting.set(id, asked);
      child.send({ id, question } satisfies Asked<Question>);
      return asked.promise;
    },
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.disconnect();
      await exited;
    },
  };
};

/** Answers the process that has started this one, until that ends or lets go. */
export const answerParent = <Question, Answer>(answer: (question: Question) => Promise<Answer>): void => {
  const tell = (told: Told<Answer> | 'ready') => void process.send?.(told);
  process.on('message', ({ id, question }: Asked<Question>) => {
    answer(question).then(
      (found) => tell({ id, answer: found }),
      (error: Error) => tell({ id, error: error.message }),
    );
  });
  process.on('disconnect', () => process.exit());
  // A terminal's Ctrl-C reaches this process too, whose end the other one decides.
  process.on('SIGINT', () => {});
  tell('ready');
};
