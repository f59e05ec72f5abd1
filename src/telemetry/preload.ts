import type { Sdk } from './sdk.ts';
import { readTelemetry, type TelemetrySettings } from './settings.ts';

export interface Telemetry {
  readonly settings: TelemetrySettings;
  /** Null where nothing is sent. */
  readonly sdk: Sdk | null;
}

/** Where nothing is configured: `/metrics` is served, and nothing sent. */
export const NO_TELEMETRY: Telemetry = { settings: readTelemetry({}), sdk: null };

let loaded = NO_TELEMETRY;

/**
 * Loads the SDK for a service, and for no other command, when the environment asks for it: it takes a quarter of a second.
 * What the environment says that is not understood is left to the service, which refuses to start.
 */
export const preloadTelemetry = async (argv: readonly string[], env: NodeJS.ProcessEnv): Promise<void> => {
  const command = argv.slice(2).find((argument) => !argument.startsWith('-')) ?? 'serve';
  if (command !== 'serve') return;
  const settings = readTelemetry(env);
  const wanted = (settings.traces || settings.metrics || settings.logs) && settings.problems.length === 0;
  loaded = { settings, sdk: wanted ? (await import('./sdk.ts')).startSdk(settings) : null };
};

/** What was loaded before everything else. */
export const preloadedTelemetry = (): Telemetry => loaded;
