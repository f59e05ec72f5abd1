/** What is on record of a call: ids and names alone, never content. */
export interface AccessRecord {
  /** `package.Service/Method`. */
  readonly rpc: string;
  /** Whether the call changes nothing. */
  readonly read: boolean;
  /** The calling service; empty when it was not authenticated. */
  readonly caller: string;
  /** The user the call was made for; null when it acted for itself, or never said. */
  readonly actor: string | null;
  /** The projects the call was about, or those its answer names. */
  readonly projects: readonly string[];
  /** The user the call was about; null when about none. */
  readonly user: string | null;
  /** `OK`, the reason of a refusal, or the code where there is no reason; `OPENED` when a stream sent its first message. */
  readonly result: string;
  readonly correlationId: string;
  /** From the call's headers to its end, in milliseconds. */
  readonly durationMs: number;
}

/** Puts calls on record, beside their work. */
export interface AccessLog {
  /** @throws Refusal OVERLOADED while records cannot be written and calls are to be refused then */
  admit(): void;
  record(record: AccessRecord): void;
  /** Writes what is left. */
  close(): Promise<void>;
}
