import { verifyChain, type Walked } from '../changes/verify.ts';
import { loadConfig } from '../config.ts';
import { createDatabase } from '../db/pool.ts';
import { provideDatabase } from '../db/provide.ts';
import { migrate } from '../migrator/migrate.ts';
import { untilInterrupted } from './interrupt.ts';
import { tell } from './output.ts';
import { everyTwoSeconds } from './progress.ts';

export interface VerifyOptions {
  readonly project: string;
  /** Chains that somebody kept, by revision. */
  readonly kept: ReadonlyMap<bigint, Buffer>;
  readonly json: boolean;
}

/**
 * Walks a project's whole chain as the service's role, and says whether it is whole; the exit code is 1 when it is not.
 * @throws Refusal PROJECT_NOT_FOUND, or what the database's failure means
 */
export async function verifyChanges({ project, kept, json }: VerifyOptions): Promise<void> {
  const config = loadConfig(process.env, 'command');
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const provided = await provideDatabase(config, { share: true, log: { info: tell }, signal });
    opened.defer(() => provided.stop());
    await migrate(provided.appUrl, { mode: 'check' });
    const db = await createDatabase({ url: provided.appUrl, size: 1 });
    opened.defer(() => db.end());
    const walked = await verifyChain(db, project, { kept, onPage: progress(), signal });
    process.stdout.write(`${json ? JSON.stringify(asJson(project, walked)) : describeWalk(project, walked)}\n`);
    if (walked.verdict.faultCount > 0) process.exitCode = 1;
  });
}

/** Tells how far a long walk is, now and then. */
const progress = () => {
  const due = everyTwoSeconds();
  return (read: number, revision: bigint, head: bigint): void => {
    if (due()) tell(`${thousands(read)} changes, up to revision ${revision} of ${head}`);
  };
};

const thousands = (count: number): string => count.toLocaleString('en').replaceAll(',', ' ');
const counted = (count: number, noun: string): string => `${thousands(count)} ${noun}${count === 1 ? '' : 's'}`;

/** What a walk found, in lines for people. */
export function describeWalk(project: string, { verdict, head, headChain, earliest }: Walked): string {
  const { checked, faultCount, faults, unproven } = verdict;
  const whole = faultCount === 0;
  const place = `${head}=${headChain.toString('hex')}`;
  const found = whole ? 'chain whole' : `chain broken, ${counted(faultCount, 'fault')}`;
  return [
    `project ${project}: ${counted(checked, 'change')}, ${found}, head ${place}`,
    ...faults.map(({ text }) => `  fault: ${text}`),
    ...(faultCount > faults.length ? [`  and ${thousands(faultCount - faults.length)} more`] : []),
    ...(earliest > 0n ? [`  changes up to revision ${earliest} are forgotten by compaction`] : []),
    ...unproven.map((text) => `  not proven: ${text}`),
    ...(whole ? ['  whoever keeps the head can show later, with --kept, whether the history was rewritten'] : []),
  ].join('\n');
}

const asJson = (project: string, { verdict, head, headChain, earliest }: Walked) => ({
  ok: verdict.faultCount === 0,
  projectId: project,
  head: { revision: String(head), chain: headChain.toString('hex') },
  earliestRevision: String(earliest),
  ...verdict,
  faults: verdict.faults.map((fault) => ({
    ...fault,
    revision: String(fault.revision),
    orRevision: fault.orRevision === null ? null : String(fault.orRevision),
  })),
});
