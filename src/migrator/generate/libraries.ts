import { loadParser, type Parser } from '../lint/parser.ts';

/** What compares schemas and what reads SQL: for who writes migrations, and in no image that runs the service. */
export interface Libraries {
  readonly delta: typeof import('@supabase/pg-delta');
  readonly postgres: typeof import('libpg-query');
  readonly parser: Parser;
}

/** @throws Error saying where to go, in an installation without development dependencies */
export async function loadLibraries(): Promise<Libraries> {
  const delta = await import('@supabase/pg-delta').catch(missing);
  const parser = await loadParser();
  return { delta, postgres: await import('libpg-query'), parser };
}

function missing(error: unknown): never {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
  throw new Error(
    '`migrate generate` needs @supabase/pg-delta, which is a development dependency: run it where the source is checked out, ' +
      'after `npm ci`',
    { cause: error },
  );
}
