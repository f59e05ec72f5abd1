/** Where a server listens. Port 0 is any free one. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Reads `host:port`, an IPv6 host in brackets; throws an Error that names what was expected. */
export const parseAddress = (text: string): Address => {
  const [, host, port] = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+):(\d{1,5})$/.exec(text) ?? [];
  if (!host || !port || Number(port) > 65_535) {
    throw new Error(`"${text}" is not an address: expected host:port, as in 127.0.0.1:50051`);
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
};

/** Writes an address as `parseAddress` reads it. */
export const formatAddress = ({ host, port }: Address): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** Whether only this machine reaches a host name or address. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
