import type { Fault } from '../fault.ts';
import { backendTerminate } from './backend-terminate.ts';
import { cancel } from './cancel.ts';
import { commitUnseen } from './commit-unseen.ts';
import { deadlock } from './deadlock.ts';
import { diskFullData, diskFullWal } from './disk-full.ts';
import { pgbouncerRestart } from './pgbouncer-restart.ts';
import { postgresKill } from './postgres-kill.ts';
import { replyLost } from './reply-lost.ts';
import { serialization } from './serialization.ts';
import { serviceKill } from './service-kill.ts';
import { serviceTerm } from './service-term.ts';
import { watcher } from './watcher.ts';

/** Every kind of fault. The order is part of what a seed says. */
export const FAULTS: readonly Fault[] = [
  postgresKill,
  backendTerminate,
  pgbouncerRestart,
  serviceKill,
  serviceTerm,
  replyLost,
  commitUnseen,
  deadlock,
  serialization,
  cancel,
  diskFullData,
  diskFullWal,
  watcher,
];
