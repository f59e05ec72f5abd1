import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Client, type ServiceError, status } from '@grpc/grpc-js';
import { type Address, formatAddress } from '../rpc/listen.ts';
import { type ChannelOptions, channelCredentials } from './channel.ts';
import { print } from './output.ts';

/** As given on the command line. */
export interface HealthOptions extends ChannelOptions {
  /** Absent: where this environment's service serves health. */
  readonly address?: Address;
  /** A name of the contract, `readiness` or `liveness`; empty: the whole service. */
  readonly service: string;
  /** Milliseconds for the connection and the answer. */
  readonly timeout: number;
  readonly json?: boolean;
}

/** `grpc.health.v1.HealthCheckResponse.ServingStatus`, by number. */
const SERVING_STATUS = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const;
type ServingStatus = (typeof SERVING_STATUS)[number];

/** What a health check found. */
interface Found {
  readonly status: ServingStatus | 'UNREACHABLE';
  /** In a few words, for people. */
  readonly text: string;
}

/**
 * Asks a running service for its health, as a probe does.
 * @throws Error unless it is SERVING: it is not, knows no such service, or does not answer in time; ConfigError when the
 *   environment names no address that the options reach
 */
export async function checkHealth(options: HealthOptions): Promise<void> {
  const address = reachable(options.address ?? (await ownAddress(options)));
  const found = await ask(address, options);
  if (options.json) print(JSON.stringify({ address, service: options.service, status: found.status }));
  else if (found.status === 'SERVING') print(found.text);
  if (found.status !== 'SERVING') throw new Error(found.text);
}

/** Where the service of this environment serves health: in plaintext, unless a file for TLS is given. */
const ownAddress = async ({ ca, cert }: HealthOptions): Promise<Address> => {
  // A probe that names its address does not wait for the configuration's code.
  const { ConfigError, loadConfig } = await import('../config.ts');
  const { healthListen, grpcListen, tls } = loadConfig(process.env, 'command');
  const secured = ca !== undefined || cert !== undefined;
  if (secured) return grpcListen;
  if (healthListen === null && tls !== null) {
    throw new ConfigError(['HEALTH_LISTEN: expected, because TLS_CERT_FILE is set; or --ca and --address']);
  }
  return healthListen ?? grpcListen;
};

/**
 * The address as a client takes it: who listens on all of them is asked on the loopback one. `::` takes IPv4 too, and a container
 * often has no `::1`, so there both are tried.
 */
const reachable = ({ host, port }: Address): string => {
  const loopback = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? 'localhost' : host;
  return formatAddress({ host: loopback, port });
};

const encode = (service: string): Buffer =>
  Buffer.from(new BinaryWriter().tag(1, WireType.LengthDelimited).string(service).finish());

const decode = (bytes: Buffer): ServingStatus => {
  const reader = new BinaryReader(bytes);
  let found = 0;
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (field === 1 && type === WireType.Varint) found = reader.int32();
    else reader.skip(type, field);
  }
  return SERVING_STATUS[found] ?? 'UNKNOWN';
};

const ask = (address: string, { service, timeout, ...files }: HealthOptions): Promise<Found> =>
  new Promise((resolve) => {
    // What is asked is this very address: a proxy of the environment has no part in it.
    const client = new Client(address, channelCredentials(files), {
      'grpc.enable_http_proxy': 0,
      // A DNS server that does not answer the question for it would keep the process for half a minute.
      'grpc.service_config_disable_resolution': 1,
    });
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      encode,
      decode,
      service,
      { deadline: Date.now() + timeout },
      (error, answer) => {
        client.close();
        resolve(error === null ? answered(address, service, answer) : refused(address, service, error));
      },
    );
  });

const nameOf = (service: string): string => (service === '' ? 'the service' : service);

const answered = (address: string, service: string, answer: ServingStatus = 'UNKNOWN'): Found => ({
  status: answer,
  text: `${nameOf(service)} at ${address} is ${answer}`,
});

const refused = (address: string, service: string, { code, details }: ServiceError): Found => {
  if (code === status.NOT_FOUND) return { status: 'SERVICE_UNKNOWN', text: `${address} knows no service ${service}` };
  // The library ends its sentence with a note that is mostly empty.
  const reason = details.replace(/\. Resolution note: *$/, '');
  return { status: 'UNREACHABLE', text: `${address} did not answer: ${status[code]}, ${reason}` };
};
