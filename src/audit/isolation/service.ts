import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { Access, access } from '../../gen/jeex/persistence/v1/access_pb.js';
import type { Door } from './door.ts';
import type { Signer } from './tokens.ts';
import type { Pair } from './world.ts';

/** What the audit talks to the service with. */
export interface Service {
  readonly door: Door;
  readonly methods: readonly DescMethod[];
  readonly scopes: ReadonlySet<string>;
  readonly pair: () => Promise<Pair>;
  /** The audit's own key; null while authentication is off. */
  readonly signer: Signer | null;
}

export const keyOf = (method: DescMethod): string => `${method.parent.name}.${method.name}`;

const NOBODYS: ReadonlySet<Access> = new Set([Access.ADMIN, Access.SYSTEM, Access.MONITOR, Access.ANYONE]);

/** Whether the call acts for nobody: then an actor would be refused for that alone. */
export const isForNobody = (method: DescMethod): boolean => NOBODYS.has(getOption(method, access));
