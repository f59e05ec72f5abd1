import { createAccessLog } from '../../src/audit/access-log.ts';
import { createLog } from '../../src/log.ts';

// A service reduced to its access records on standard output, in a process of its own, whose output a test leaves unread.
const calls = Number(process.argv[2]);
const accessLog = await createAccessLog(
  { place: { to: 'stdout', own: false }, reads: 'all', full: 'drop' },
  createLog('info'),
);
for (let call = 0; call < calls; call++) {
  accessLog.record({
    rpc: 'a.B/C',
    read: false,
    caller: 'writer',
    actor: null,
    projects: [],
    users: [],
    result: 'OK',
    correlationId: String(call),
    admitted: true,
    durationMs: 0,
  });
  if (call % 100 === 0) await new Promise(setImmediate);
}
await accessLog.close();
