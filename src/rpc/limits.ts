/** The largest message either door takes, in bytes: what stock gRPC clients and servers take by default. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** Where a list ends its page, in bytes of encoded messages, so that the answer fits into one message. */
export const MAX_PAGE_BYTES = 3 * 1024 * 1024;

/** How long a request may take to come in, in milliseconds, when its client sets no deadline, */
export const BODY_TIMEOUT_MS = 10_000;
/** and however late the client's deadline is. */
export const MAX_BODY_TIMEOUT_MS = 60_000;
