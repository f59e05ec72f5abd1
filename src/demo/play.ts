import { HealthCheckResponse_ServingStatus as Serving } from '../gen/grpc/health/v1/health_pb.js';
import { CallRefused, type Connection } from './client.ts';
import { exportAll } from './exports.ts';
import { changeMinds } from './history.ts';
import { open } from './opening.ts';
import { readTheRecord } from './record.ts';
import { walkTheSteps } from './steps.ts';
import type { Story } from './story.ts';
import { meetTheWalls } from './walls.ts';

/** The ids under which the story's traces are found. */
export interface Played {
  readonly projectId: string;
  readonly correlationId: string;
}

/**
 * Plays the product's main job through the public API, and checks every step.
 * @param alone whether the service is the story's own
 * @throws StoryBroken or CallRefused, or an Error when nothing answers, at the first step that does not do what it says
 */
export const play = async (story: Story, connection: Connection, alone: boolean): Promise<Played> => {
  story.same('the service says that it is ready', await readiness(connection), Serving.SERVING);
  const cast = await open(story, connection);
  await walkTheSteps(cast);
  await changeMinds(cast);
  await meetTheWalls(cast);
  await exportAll(cast, alone);
  await readTheRecord(cast);
  return { projectId: cast.projectId, correlationId: cast.correlationId };
};

const readiness = async (connection: Connection): Promise<Serving> => {
  try {
    return (await connection.as({}).health.check({ service: 'readiness' })).status;
  } catch (error) {
    const cause = error instanceof CallRefused ? error.message : String(error);
    throw new Error(`no service answers there: start one, or leave --address out (${cause})`);
  }
};
