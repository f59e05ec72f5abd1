import { preloadedTelemetry, preloadTelemetry } from './telemetry/preload.ts';

await preloadTelemetry(process.argv, process.env);
const { run } = await import('./cli.ts');
await run(process.argv);
await preloadedTelemetry().sdk?.stop();
