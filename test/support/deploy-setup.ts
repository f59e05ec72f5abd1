import { missing, must, show } from './docker.ts';
import { lines, NO_DOCKER_VARIABLE, removeProject, starterOf, testFiles } from './stack.ts';

/**
 * Builds the images once for a run of container tests. Where there is no Docker the tests are skipped, and this says why.
 * @throws Error where CI is set and there is no Docker
 */
export async function globalSetup(): Promise<void> {
  const reason = await missing();
  if (reason === null) {
    await removeLeftovers();
    return await show(['compose', ...testFiles(), '--profile', '*', 'build']);
  }
  if (process.env.CI) throw new Error(`container tests need Docker: ${reason}`);
  process.env[NO_DOCKER_VARIABLE] = reason;
  process.stderr.write(`container tests are skipped: ${reason}\n`);
}

/** Removes what tests that were killed have left. */
export async function globalTeardown(): Promise<void> {
  if (process.env[NO_DOCKER_VARIABLE] === undefined) await removeLeftovers();
}

/** Removes the stacks of this machine whose test process has ended. */
async function removeLeftovers(): Promise<void> {
  const label = '{{.Label "com.docker.compose.project"}}';
  const lists = [
    ...[
      ['ps', '--all'],
      ['volume', 'ls'],
      ['network', 'ls'],
    ].map((list) => [...list, '--format', label]),
    ['image', 'ls', '--filter', 'reference=jeex-*', '--format', '{{.Tag}}'],
  ];
  const found = await Promise.all(lists.map((list) => must(list)));
  for (const project of new Set(found.flatMap(lines))) {
    const starter = starterOf(project);
    if (starter !== null && !isAlive(starter)) await removeProject(project);
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};
