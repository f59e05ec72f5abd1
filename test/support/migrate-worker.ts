// Brings a database up with the migrations of a directory, for tests that kill the migrator: node migrate-worker.ts URL DIRECTORY
import { up } from '../../src/migrator/migrate.ts';

const [url, directory] = process.argv.slice(2);
if (url === undefined) throw new Error('expected the URL of a database');
await up(url, { directory });
