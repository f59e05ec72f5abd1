/** The linter was asked for in an installation that carries no development dependencies. */
export class ToolMissing extends Error {
  override readonly name = 'ToolMissing';
}

/** For a tool of the linter that cannot be loaded. @throws ToolMissing */
export function missingTool(cause: unknown): never {
  throw new ToolMissing(
    '`migrate lint` needs libpg-query and squawk-cli, which are development dependencies: run it in a checkout of the ' +
      `source, after \`npm ci\` (${cause instanceof Error ? cause.message : cause})`,
    { cause },
  );
}
