import { after, describe, it } from 'node:test';
import { migrate } from '../src/migrator/migrate.ts';
import { cancelInTheMiddle } from './support/cancels.ts';
import { startPooled } from './support/pooled.ts';
import { databaseOn } from './support/postgres.ts';
import { NO_DOCKER } from './support/stack.ts';

describe('statements that are cancelled in the middle, through PgBouncer', { skip: NO_DOCKER }, async () => {
  const pooled = await startPooled();
  after(pooled.stop);
  const db = databaseOn(pooled, 'jeex');
  await migrate(db.ownerUrl, { mode: 'auto' });

  it('are gone, and leave neither a slot in use nor a write behind', async (t) => {
    await cancelInTheMiddle(db, (figures) => t.diagnostic(figures));
  });
});
