import { HealthCheckResponse_ServingStatus as Serving } from '../gen/grpc/health/v1/health_pb.js';
import type { Connection } from './client.ts';
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
 * @throws StoryBroken or CallRefused at the first step that does not do what it says
 */
export const play = async (story: Story, connection: Connection, alone: boolean): Promise<Played> => {
  const { status } = await connection.as({}).health.check({ service: 'readiness' });
  story.same('the service says that it is ready', status, Serving.SERVING);
  const cast = await open(story, connection);
  await walkTheSteps(cast);
  await changeMinds(cast);
  await meetTheWalls(cast);
  await exportAll(cast, alone);
  await readTheRecord(cast);
  return { projectId: cast.projectId, correlationId: cast.correlationId };
};
