import { goodToken } from '../audit/isolation/tokens.ts';
import { type Connection, connect } from '../demo/client.ts';
import { play } from '../demo/play.ts';
import { startTemporaryService } from '../demo/service.ts';
import { Story } from '../demo/story.ts';
import { formatAddress, parseAddress } from '../rpc/listen.ts';
import { channelCredentials } from './channel.ts';
import { untilInterrupted } from './interrupt.ts';
import { print } from './output.ts';
import { type RemoteOptions, signerOf } from './remote.ts';

export interface DemoOptions extends RemoteOptions {
  /** The gRPC address of a running service; absent: one is started, and ended with the demo. */
  readonly address?: string;
  /** One line of JSON at the end instead of the story. */
  readonly json?: boolean;
}

/** Plays the main job through the gRPC API and tells it. @throws Error at the first step that does not do what it says */
export async function demo(options: DemoOptions): Promise<void> {
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const address = await findService(options, opened);
    const signer = signerOf(options);
    const token = signer && (await goodToken(signer, 'demo'));
    const connection = connect(address, { credentials: channelCredentials(options), token });
    opened.defer(() => connection.close());
    await Promise.race([tell(options, address, connection), interrupted(signal)]);
  });
}

const findService = async ({ address }: DemoOptions, opened: AsyncDisposableStack): Promise<string> => {
  if (address !== undefined) return formatAddress(parseAddress(address));
  const service = await startTemporaryService();
  opened.defer(() => service.stop());
  return service.address;
};

const tell = async ({ address: given, json }: DemoOptions, address: string, connection: Connection): Promise<void> => {
  const story = new Story(json ? () => {} : print);
  const place = given === undefined ? `a temporary service at ${address}` : `the service at ${address}`;
  story.say(`The main job of JEEX Idea's persistence service, played over gRPC on ${place}.`);
  const ids = await play(story, connection, given === undefined);
  if (json) print(JSON.stringify({ ok: true, address, ...ids, facts: story.facts }));
  else
    print(
      `\nAll ${story.facts.length} facts hold.${given === undefined ? '' : ` The project stays: ${ids.projectId}`}`,
    );
};

const interrupted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    signal.throwIfAborted();
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
