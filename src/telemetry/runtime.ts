import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import type { Gauge, ReadGauges } from './gauge.ts';

/** How often the event loop is asked whether it is late, in milliseconds. */
const RESOLUTION_MS = 10;

/**
 * Figures of this process, as the conventions name them: those of the event loop are of the time since they were read last.
 * The event loop is watched from now on.
 */
export const watchRuntime = (): ReadGauges => {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  let before = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    const delays = delayGauges(delay);
    delay.reset();
    return [
      ...delays,
      gauge('nodejs.eventloop.utilization', 'How busy the event loop was.', '1', utilization),
      ...processGauges(),
    ];
  };
};

type Delay = Pick<ReturnType<typeof monitorEventLoopDelay>, 'count' | 'min' | 'max' | 'mean' | 'stddev' | 'percentile'>;

const delayGauges = (delay: Delay): Gauge[] => {
  // What the clock measures is from one firing of a timer to the next.
  const seconds = (ns: number) => Math.max(0, ns / 1e9 - RESOLUTION_MS / 1e3);
  const figures = {
    min: seconds(delay.min),
    max: seconds(delay.max),
    mean: seconds(delay.mean),
    stddev: delay.stddev / 1e9,
    p50: seconds(delay.percentile(50)),
    p90: seconds(delay.percentile(90)),
    p99: seconds(delay.percentile(99)),
  };
  return Object.entries(figures).map(([name, value]) =>
    // Of a moment in which no timer has fired there is none.
    gauge(`nodejs.eventloop.delay.${name}`, `How late the event loop was: ${name}.`, 's', delay.count > 0 ? value : 0),
  );
};

const gauge = (name: string, description: string, unit: string, value: number): Gauge => ({
  name,
  description,
  unit,
  kind: 'gauge',
  points: [{ value, attributes: {} }],
});

const processGauges = (): Gauge[] => {
  const { user, system } = process.cpuUsage();
  return [
    {
      name: 'process.cpu.time',
      description: 'What the process has used of the processors.',
      unit: 's',
      kind: 'counter',
      points: [
        { value: user / 1e6, attributes: { 'cpu.mode': 'user' } },
        { value: system / 1e6, attributes: { 'cpu.mode': 'system' } },
      ],
    },
    {
      name: 'process.memory.usage',
      description: 'Physical memory in use.',
      unit: 'By',
      kind: 'updowncounter',
      points: [{ value: process.memoryUsage.rss(), attributes: {} }],
    },
    gauge('process.uptime', 'Since the process was started.', 's', process.uptime()),
  ];
};
