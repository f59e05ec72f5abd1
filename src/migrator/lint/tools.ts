/** The linter was asked for in an installation that carries no development dependencies. */
export class ToolMissing extends Error {
  override readonly name = 'ToolMissing';
}

/** Says what to do where one of the linter's tools is not installed. @throws ToolMissing, or the error if it is another */
export function missingTool(error: unknown): never {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw error;
  throw new ToolMissing(
    '`migrate lint` needs libpg-query and squawk-cli, which are development dependencies: run it in a checkout of the ' +
      'source, after `npm ci`',
    { cause: error },
  );
}
