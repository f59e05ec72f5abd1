/** The linter or the generator was asked for in an installation that carries no development dependencies. */
export class ToolMissing extends Error {
  override readonly name = 'ToolMissing';
}

/** For a tool that cannot be loaded, of the parser that both commands use or of the linter. @throws ToolMissing */
export function missingTool(cause: unknown): never {
  throw new ToolMissing(
    '`migrate lint` and `migrate generate` need libpg-query and squawk-cli, which are development dependencies: run them ' +
      `in a checkout of the source, after \`npm ci\` (${cause instanceof Error ? cause.message : cause})`,
    { cause },
  );
}
