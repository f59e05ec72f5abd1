/** The largest message either door takes, in bytes: what stock gRPC clients and servers take by default. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** Where a list ends its page, in bytes of encoded messages, so that the answer fits into one message. */
export const MAX_PAGE_BYTES = 3 * 1024 * 1024;

/** How long a request may take to come in, in milliseconds, when its client sets no deadline, */
export const BODY_TIMEOUT_MS = 10_000;
/** and however late the client's deadline is. */
export const MAX_BODY_TIMEOUT_MS = 60_000;

/** How many connections each door, and the health port, has at a time: who comes after that is turned away at once. */
export const MAX_CONNECTIONS = 2000;

/**
 * How many calls one gRPC connection has at a time, open watches among them. What a client starts beyond it waits in the client,
 * where it costs the service nothing: under overload this keeps the answers that are given useful ones.
 */
export const MAX_STREAMS = 256;

/**
 * When a connection has had its time, in milliseconds: clients then connect anew, and find the replicas that were added meanwhile.
 * Each has its own, up to a tenth more or less, so that they do not all come back at once.
 */
export const CONNECTION_AGE_MS = 600_000;
/** How long, in milliseconds, the streams of such a gRPC connection may still take. */
export const CONNECTION_AGE_GRACE_MS = 600_000;

/** After how long, in milliseconds, the service asks whether the other end of a connection is still there, */
export const KEEPALIVE_MS = 60_000;
/** and how long a gRPC client has to say so. */
export const KEEPALIVE_TIMEOUT_MS = 20_000;

/** How long, in milliseconds, a client may take to take in one message. */
export const SLOW_READER_MS = 30_000;
/** What all clients together may leave unread, in bytes: beyond it whoever has been slowest is cut off. */
export const MAX_UNREAD_BYTES = 128 * 1024 * 1024;
