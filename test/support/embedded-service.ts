import { startEmbedded } from '../../src/db/embedded.ts';

// A service reduced to its database, in a process of its own that a test can kill.
const [dataDir = '', kind] = process.argv.slice(2);
const { adminUrl, note } = await startEmbedded({ dataDir, ephemeral: kind === 'ephemeral', log: { info: () => {} } });
process.stdout.write(`${JSON.stringify({ adminUrl, note })}\n`);
setInterval(() => {}, 60_000);
