import { type Certification, startCertifying } from '../../src/certify/certify.ts';
import type { Verdict } from '../../src/certify/report.ts';
import type { World } from './fault.ts';
import type { Options } from './options.ts';
import { openChannelTo } from './replica.ts';

/** Callers whose every call is on record. */
export interface Load {
  /** Resolves when every replica is ready, and writes are acknowledged again. */
  served(): Promise<void>;
  stop(): Promise<Verdict>;
}

/** For each caller, before it counts as served again. */
const ACKNOWLEDGED = 2;

export const startLoad = async (
  { replicas, until }: World,
  { seed, callers, projects, watchers, rate }: Pick<Options, 'seed' | 'callers' | 'projects' | 'watchers' | 'rate'>,
): Promise<Load> => {
  const addresses = replicas.map(({ grpc }) => grpc);
  const connect = () => openChannelTo(addresses);
  const certification: Certification = await startCertifying({ connect, seed, callers, projects, watchers, rate });
  let broken: unknown = null;
  certification.ended.catch((error: unknown) => {
    broken = error;
  });
  const areReady = async (): Promise<boolean> => {
    const dead = replicas.find(({ died }) => died !== null);
    if (dead) throw new Error(`${dead.died}`);
    return (await Promise.all(replicas.map(({ ready }) => ready()))).every(Boolean);
  };
  const served = async (): Promise<void> => {
    await until(areReady, 'every replica is ready');
    const goal = certification.progress().acknowledged + ACKNOWLEDGED * callers;
    await until(() => {
      if (broken !== null) throw new Error('the load has ended', { cause: broken });
      return certification.progress().acknowledged >= goal;
    }, 'writes are acknowledged');
  };
  return { served, stop: () => certification.stop() };
};
