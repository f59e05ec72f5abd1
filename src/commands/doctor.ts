import { runDoctor } from '../doctor/doctor.ts';
import { examine } from '../doctor/patient.ts';
import { documentOf, isWell, tellResults, verdictOf } from '../doctor/report.ts';
import { untilInterrupted } from './interrupt.ts';
import { print } from './output.ts';

export interface DoctorOptions {
  readonly json: boolean;
}

/**
 * Looks at the configuration, the database and what stands between, and tells how to mend what is wrong; it changes nothing. The
 * exit code is 1 when a check has failed.
 */
export async function doctor({ json }: DoctorOptions): Promise<void> {
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const patient = examine(process.env, opened, signal);
    const note = await patient.note();
    if (!json) print(`Doctor of ${note ?? 'a database that is not there'}`);
    const results = await runDoctor(patient, json ? () => {} : tellResults(print), signal);
    print(json ? documentOf(note, results) : verdictOf(results));
    if (!isWell(results)) process.exitCode = 1;
  });
}
