import { randomBytes, randomUUID } from 'node:crypto';
import { create, type DescField, type DescMessage, type DescMethod, type Message } from '@bufbuild/protobuf';
import { createValidator, type Violation } from '@bufbuild/protovalidate';
import { View } from '../../gen/jeex/persistence/v1/document_service_pb.js';

/** What requests are about: the ids of resources, their names, and the secrets that go with them. */
export interface Facts {
  readonly project: string;
  /** The user a call about a user or a membership is about. */
  readonly user: string;
  /** Who is to own a project that is created. */
  readonly creator: string;
  readonly email: string;
  /** A PENDING execution. */
  readonly execution: string;
  readonly running: string;
  readonly runningLease: string;
  /** A PENDING export. */
  readonly export: string;
  readonly processing: string;
  readonly processingLease: string;
  readonly documentType: string;
  readonly agentType: string;
  /** A word that stands in every content and input of the project, and nowhere else. */
  readonly mark: string;
  readonly correlationId: string;
}
export type Fact = keyof Facts;

/** Facts of nothing: ids and names that nobody has. */
export const absentFacts = (): Facts => ({
  project: randomUUID(),
  user: randomUUID(),
  creator: randomUUID(),
  email: `${randomUUID()}@isolation-audit.invalid`,
  execution: randomUUID(),
  running: randomUUID(),
  runningLease: randomUUID(),
  export: randomUUID(),
  processing: randomUUID(),
  processingLease: randomUUID(),
  documentType: `none-${randomBytes(6).toString('hex')}`,
  agentType: `isolation-audit-${randomUUID()}`,
  mark: `absent${randomBytes(8).toString('hex')}`,
  correlationId: randomUUID(),
});

export interface MadeRequest {
  readonly message: Message;
  readonly used: ReadonlySet<Fact>;
}

/** What the contract's field names stand for, wherever they are. */
const FACTS: Readonly<Record<string, Fact>> = {
  project_id: 'project',
  user_id: 'user',
  ids: 'user',
  created_by: 'creator',
  email: 'email',
  email_prefix: 'correlationId',
  execution_id: 'execution',
  parent_execution_id: 'execution',
  document_type: 'documentType',
  document_types: 'documentType',
  agent_type: 'agentType',
  agent_types: 'agentType',
  correlation_id: 'correlationId',
  query: 'mark',
};
const CONSTANTS: Readonly<Record<string, unknown>> = {
  name: 'Isolation audit',
  language: 'en',
  content: 'written by the isolation audit',
  after_revision: 0n,
  page_size: 20,
  view: View.FULL,
  file_path: 'isolation-audit.zip',
  file_sha256: '0'.repeat(64),
};
/** What a resource's own `id` and lease stand for; those of a service that leases work depend on whether it is held. */
const RESOURCES: Readonly<Record<string, { id: Fact; held?: Fact; lease?: Fact }>> = {
  User: { id: 'user' },
  UserService: { id: 'user' },
  Project: { id: 'project' },
  ProjectService: { id: 'project' },
  AgentExecutionService: { id: 'execution', held: 'running', lease: 'runningLease' },
  ExportService: { id: 'export', held: 'processing', lease: 'processingLease' },
};

const factOf = (field: DescField, desc: DescMessage, method: DescMethod): Fact | undefined => {
  const resource = RESOURCES[desc === method.input ? method.parent.name : desc.name];
  const held = desc.fields.some(({ name }) => name === 'lease_token');
  if (field.name === 'id') return held ? resource?.held : resource?.id;
  return field.name === 'lease_token' ? resource?.lease : FACTS[field.name];
};

const validator = createValidator();
const ROUNDS = 4;
type Fields = Record<string | number, unknown>;

/** Makes requests with the facts of one world, and notes which of them a request took. */
class Maker {
  readonly used = new Set<Fact>();
  readonly #method: DescMethod;
  readonly #facts: Facts;

  constructor(method: DescMethod, facts: Facts) {
    this.#method = method;
    this.#facts = facts;
  }

  /** A message with every field whose name says what it stands for. */
  message(desc: DescMessage): Message {
    const init: Fields = {};
    for (const field of desc.fields) {
      const fact = factOf(field, desc, this.#method);
      const value = fact === undefined ? CONSTANTS[field.name] : this.#facts[fact];
      if (value === undefined) continue;
      if (fact !== undefined) this.used.add(fact);
      init[field.localName] = field.fieldKind === 'list' ? [value] : value;
    }
    return create(desc, init);
  }

  /** The least that satisfies a rule; undefined where nothing is known that would. */
  least(field: DescField, rule: string): unknown {
    if (rule === 'required' && field.message) return this.message(field.message);
    if (rule === 'repeated.min_items' && field.message) return [this.message(field.message)];
    if (rule === 'enum.not_in') return field.enum?.values.find(({ number }) => number !== 0)?.number;
    if (rule === 'string.min_len') return 'isolation audit';
    return /^int32\.gte?$/.test(rule) ? 1 : undefined;
  }

  /** Puts what a broken rule asks for where it asks for it. */
  repair(message: Message, { field: path, ruleId }: Violation): void {
    const last = path.at(-1);
    let holder = message as unknown as Fields;
    for (const step of path.slice(0, -1)) {
      holder = holder[step.kind === 'field' ? step.localName : step.kind === 'list_sub' ? step.index : ''] as Fields;
    }
    const value = last?.kind === 'field' ? this.least(last, ruleId) : undefined;
    if (last?.kind !== 'field' || value === undefined) {
      const at = path.map((step) => (step.kind === 'field' ? step.name : '')).join('.');
      throw new Error(`its request cannot be made: nothing is known for ${at} (${ruleId})`);
    }
    holder[last.localName] = value;
  }
}

/**
 * A request of any RPC with the facts of a world, made from its descriptor: what field names stand for, and where a rule still
 * asks for more the least that satisfies it. A new RPC is covered without a change here, unless it brings a new kind of field.
 * @throws Error naming the field for which nothing is known
 */
export const makeRequest = (method: DescMethod, facts: Facts): MadeRequest => {
  const maker = new Maker(method, facts);
  const message = maker.message(method.input);
  for (let round = 0; round < ROUNDS; round++) {
    const result = validator.validate(method.input, message);
    if (result.kind === 'valid') return { message, used: maker.used };
    if (result.kind === 'error') throw result.error;
    for (const violation of result.violations) maker.repair(message, violation);
  }
  throw new Error('its request cannot be made: its rules are not satisfied');
};
