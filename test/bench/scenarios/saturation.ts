import { create, toBinary } from '@bufbuild/protobuf';
import { HealthCheckRequestSchema } from '../../../src/gen/grpc/health/v1/health_pb.js';
import { type Driver, failedOf, type Outcome } from '../support/load.ts';
import { type Mix, prepareMix } from '../support/mix.ts';
import { startNodeDriver } from '../support/node-driver.ts';
import type { Bench, CurvePoint, Figure, Scenario } from '../support/scenario.ts';
import { latencyOf, spreadOf } from '../support/statistics.ts';
import { ask, type Target } from '../support/world.ts';

/** Where the ramp begins, in calls a second, how it goes on, and where it ends at the latest. */
const FIRST_RATE = 1_000;
const STEP = 1.3;
const LAST_RATE = 100_000;
/** A step that answers less than this share of what is offered is beyond saturation. */
const KEPT_UP = 0.9;
/** So many steps in a row: one may have met something else that the machine does. */
const ENOUGH = 2;
/** Of the saturation rate. */
const POINTS = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3];
const HALF = 0.5;
const FLOOD = 3;
/** Those that have bounds are measured once in each round. */
const BOUNDED = [HALF, FLOOD];
const HEALTH_RATE = 50;
const BOUNDS = { p95: 20, p99: 50, goodput: 0.95, health: 100 };

const goodputOf = ({ answered, seconds }: Outcome): number => answered / seconds;

/** The most that is answered a second, whatever is offered. */
const findSaturation = async (bench: Bench, mix: Mix): Promise<number> => {
  let most = 0;
  let behind = 0;
  for (let rate = FIRST_RATE; rate < LAST_RATE && behind < ENOUGH; rate *= STEP) {
    const goodput = goodputOf(await mix.run(rate, bench.seconds));
    bench.tell(`offered ${rate.toFixed(0)}, answered ${goodput.toFixed(0)} a second`);
    most = Math.max(most, goodput);
    behind = goodput < KEPT_UP * rate ? behind + 1 : 0;
  }
  return most;
};

const HEALTH = '/grpc.health.v1.Health/Check';

/** Asks for the health meanwhile, by a process that does nothing else. */
const askHealth = async (target: Target, driver: Driver, seconds: number): Promise<Outcome> => {
  const body = toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema));
  const answerBytes = (await ask(target, HEALTH, body)).byteLength;
  const { address, headers } = target;
  const calls = Math.ceil(seconds * HEALTH_RATE);
  return await driver.run({
    address,
    headers,
    requests: [{ path: HEALTH, body, answerBytes }],
    callers: calls,
    calls,
    rate: HEALTH_RATE,
  });
};

interface Point extends CurvePoint {
  readonly share: number;
  readonly failed: number;
  /** The 99th percentile of asking for the health, in milliseconds. */
  readonly health: number;
}

const measurePoint = async (
  bench: Bench,
  run: () => Promise<Outcome>,
  health: () => Promise<Outcome>,
  at: { share: number; offered: number },
): Promise<Point> => {
  const [outcome, asked] = await Promise.all([run(), health()]);
  if (failedOf(asked) > 0) throw new Error(`the health was refused: ${JSON.stringify(asked.failed)}`);
  const point = {
    ...at,
    goodput: goodputOf(outcome),
    failed: failedOf(outcome),
    health: latencyOf(asked.took).p99,
    ...latencyOf(outcome.took),
  };
  bench.tell(`${JSON.stringify(point)} ${JSON.stringify(outcome.failed)}`);
  return point;
};

const figuresOf = (saturation: number, points: readonly Point[]): Figure[] => {
  const peak = Math.max(saturation, ...points.map(({ goodput }) => goodput));
  const figure = (
    name: string,
    unit: string,
    bound: Figure['bound'],
    share: number,
    read: (point: Point) => number,
  ): Figure => {
    const spread = spreadOf(points.filter((point) => point.share === share).map(read));
    return { name, value: spread.median, spread, unit, bound };
  };
  return [
    { name: 'saturation, 80 % reads', value: saturation, spread: null, unit: 'calls/s', bound: null },
    figure('p95 at half of it', 'ms', { most: BOUNDS.p95 }, HALF, ({ p95 }) => p95),
    figure('p99 at half of it', 'ms', { most: BOUNDS.p99 }, HALF, ({ p99 }) => p99),
    figure('calls refused at half of it', 'calls', { most: 0 }, HALF, ({ failed }) => failed),
    figure(
      'goodput at 3 times, against the peak',
      'times',
      { least: BOUNDS.goodput },
      FLOOD,
      (at) => at.goodput / peak,
    ),
    figure('p99 of health at 3 times', 'ms', { most: BOUNDS.health }, FLOOD, ({ health }) => health),
  ];
};

export const saturation: Scenario = {
  name: 'saturation',
  about: 'latency at half of the saturation rate, goodput and health at 3 times it, and the curve between',
  run: async (bench) => {
    const { world } = bench;
    const target = await bench.start({ name: 'service' });
    const mix = await prepareMix(target, world.projects, bench.drivers);
    const prober = await startNodeDriver(bench.signal);
    bench.opened.defer(prober.stop);
    await findSaturation(bench, mix);
    const rate = await findSaturation(bench, mix);
    const seconds = 2 * bench.seconds;
    const health = () => askHealth(target, prober, seconds);
    const measure = (share: number) => {
      const offered = share * rate;
      return measurePoint(bench, () => mix.run(offered, seconds), health, { share, offered });
    };
    const curve: Point[] = [];
    for (const share of POINTS) curve.push(await measure(share));
    const points = [...curve];
    for (let i = 1; i < bench.rounds; i++) {
      for (const share of BOUNDED) points.push(await measure(share));
    }
    return { figures: figuresOf(rate, points), measured: [], curve };
  },
};
