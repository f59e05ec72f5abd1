import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after } from 'node:test';

/** What becomes of a statement between the service and PostgreSQL. */
export type Fault =
  /** PostgreSQL refuses it: it is not executed. */
  | { readonly kind: 'error'; readonly sqlstate: string }
  /** It takes its time on the way, in milliseconds. */
  | { readonly kind: 'late'; readonly ms: number }
  /** It gets lost, and nobody says so. */
  | { readonly kind: 'hang' }
  /** It gets lost, and the connection ends. */
  | { readonly kind: 'close before' }
  /** PostgreSQL has executed and committed it; the connection ends in place of the answer. */
  | { readonly kind: 'close after' };

interface FaultProxy {
  /** The same database through the proxy. */
  readonly url: string;
  /** How often each statement has been executed, or would have been, by its name. */
  readonly executions: ReadonlyMap<string, number>;
  /** Inflicts a fault on the nth execution from now of a statement, the first for 1; on those of a list. */
  inflict(statement: string, nth: number | readonly number[], fault: Fault): void;
  /** Forgets the faults that were not inflicted yet, and ends what hangs. */
  clear(): void;
}

interface Between {
  /** Counts an execution, and answers what it meets. */
  readonly meet: (statement: string) => Fault | null;
  readonly onHang: (client: Socket) => void;
}

/** `<entity.verb>_<hash>`, and a generation where its plan was outdated. */
const NAME = /^(.+)_[0-9a-f]{12}(?:_\d+)?$/;

const code = (letter: string): number => letter.charCodeAt(0);
const [PARSE, BIND, SYNC, READY] = [code('P'), code('B'), code('S'), code('Z')];

/** A message of the protocol, whole. */
interface Message {
  /** 0 for the first of a connection, which has none. */
  readonly type: number;
  readonly bytes: Buffer;
}

/** Cuts a stream of bytes into messages. */
const createSplitter = (startsTyped: boolean) => {
  let pending: Buffer = Buffer.alloc(0);
  let typed = startsTyped;
  return (chunk: Buffer): Message[] => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    const messages: Message[] = [];
    for (;;) {
      const offset = typed ? 1 : 0;
      if (pending.length < offset + 4) return messages;
      const length = pending.readUInt32BE(offset) + offset;
      if (pending.length < length) return messages;
      messages.push({ type: typed ? (pending[0] ?? 0) : 0, bytes: pending.subarray(0, length) });
      pending = pending.subarray(length);
      typed = true;
    }
  };
};

/** The statement a Bind is for. */
const boundName = ({ bytes }: Message): string => {
  const portalEnd = bytes.indexOf(0, 5);
  const name = bytes.toString('utf8', portalEnd + 1, bytes.indexOf(0, portalEnd + 1));
  return NAME.exec(name)?.[1] ?? name;
};

const errorResponse = (sqlstate: string): Buffer => {
  const fields = Buffer.from(`SERROR\0VERROR\0C${sqlstate}\0Minflicted by the test\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeUInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
};

interface Planned {
  readonly nth: number;
  readonly fault: Fault;
}

/** Which execution of which statement meets what. */
const createPlan = () => {
  const executions = new Map<string, number>();
  const planned = new Map<string, Planned[]>();
  return {
    executions,
    plan: (statement: string, nths: readonly number[], fault: Fault) => {
      const before = executions.get(statement) ?? 0;
      const added = nths.map((nth) => ({ nth: before + nth, fault }));
      planned.set(statement, [...(planned.get(statement) ?? []), ...added]);
    },
    meet: (statement: string): Fault | null => {
      const nth = (executions.get(statement) ?? 0) + 1;
      executions.set(statement, nth);
      return planned.get(statement)?.find((each) => each.nth === nth)?.fault ?? null;
    },
    clear: () => planned.clear(),
  };
};

/** Passes on one connection, whose client sends one statement at a time, and waits for its answer. */
const pass = (client: Socket, upstream: Socket, { meet, onHang }: Between) => {
  const fromClient = createSplitter(false);
  const fromServer = createSplitter(true);
  /** What was sent since the last Sync. */
  let group: Message[] = [];
  /** What the answer that is awaited meets. */
  let awaited: Fault | null = null;
  let ended = false;

  const end = () => {
    ended = true;
    client.destroy();
    upstream.destroy();
  };

  const forward = (messages: readonly Message[]) => {
    for (const { bytes } of messages) upstream.write(bytes);
  };

  const send = () => {
    const bind = group.find(({ type }) => type === BIND);
    const fault = bind ? meet(boundName(bind)) : null;
    const messages = group;
    group = [];
    if (fault?.kind === 'hang') return onHang(client);
    if (fault?.kind === 'close before') return end();
    awaited = fault;
    if (fault?.kind === 'late') return void setTimeout(() => forward(messages), fault.ms);
    // The client takes it for prepared from now on, so it has to be.
    forward(fault?.kind === 'error' ? messages.filter(({ type }) => type === PARSE || type === SYNC) : messages);
  };

  client.on('data', (chunk) => {
    for (const message of fromClient(chunk)) {
      if (ended) return;
      group.push(message);
      const isStartup = message.type === 0 || message.type === code('p') || message.type === code('X');
      if (message.type === SYNC) send();
      else if (isStartup || message.type === code('Q')) {
        forward(group);
        group = [];
      }
    }
  });
  upstream.on('data', (chunk) => {
    for (const { type, bytes } of fromServer(chunk)) {
      if (ended) return;
      if (awaited?.kind === 'close after') {
        if (type === READY) end();
        continue;
      }
      if (awaited?.kind === 'error' && type === READY) client.write(errorResponse(awaited.sqlstate));
      if (type === READY) awaited = null;
      client.write(bytes);
    }
  });
};

/**
 * A proxy before PostgreSQL that reads the protocol far enough to know which prepared statement is executed, and inflicts
 * faults on the executions a test names. Over bare TCP.
 */
export const openFaultProxy = async (url: string): Promise<FaultProxy & { close(): void }> => {
  const target = new URL(url);
  const plan = createPlan();
  const sockets = new Set<Socket>();
  const hanging = new Set<Socket>();

  const keep = (socket: Socket, other: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      sockets.delete(socket);
      hanging.delete(socket);
      other.destroy();
    });
  };

  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: Number(target.port), host: target.hostname, noDelay: true });
    keep(client, upstream);
    keep(upstream, client);
    pass(client, upstream, { meet: plan.meet, onHang: (socket) => hanging.add(socket) });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxied = new URL(url);
  proxied.hostname = '127.0.0.1';
  proxied.port = String((server.address() as AddressInfo).port);
  return {
    url: proxied.href,
    executions: plan.executions,
    inflict: (statement, nth, fault) => plan.plan(statement, [nth].flat(), fault),
    clear: () => {
      plan.clear();
      for (const socket of hanging) socket.destroy();
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
};

/** The same, closed after the file's tests. */
export const useFaultProxy = async (url: string): Promise<FaultProxy> => {
  const proxy = await openFaultProxy(url);
  after(proxy.close);
  return proxy;
};
